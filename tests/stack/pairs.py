"""Connected streams over real sockets and in memory, and the far ends of a relay."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from qanat.stack.address import Address
from qanat.stack.facts import Peer
from qanat.stack.stream.base import Stream
from qanat.stack.stream.memory import memory_pipe
from qanat.stack.stream.sockets import TcpStream, UnixStream

__all__ = ["Ends", "ends", "tcp_pair", "tcp_sockets", "unix_pair"]


def tcp_sockets() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    for one in (ours, theirs):
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


def tcp_pair() -> tuple[TcpStream, TcpStream]:
    pair = []
    for sock in tcp_sockets():
        stream = TcpStream(sock)
        stream.ext.insert(Peer(Address.of_socket(sock.getpeername())))
        pair.append(stream)
    return pair[0], pair[1]


def unix_pair() -> tuple[UnixStream, UnixStream]:
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    return UnixStream(one), UnixStream(other)


@dataclass
class Ends:
    """``client`` - (near, far) - ``target``: the two in the middle are to be relayed."""

    client: Stream
    near: Stream
    far: Stream
    target: Stream

    def abort(self) -> None:
        for stream in (self.client, self.near, self.far, self.target):
            stream.abort()


def ends(kind: str, chunk: int | None = None) -> Ends:
    if kind == "memory":
        client, near = memory_pipe(chunk=chunk)
        target, far = memory_pipe(chunk=chunk)
        return Ends(client, near, far, target)
    pair = tcp_pair if kind == "tcp" else unix_pair
    left, right = pair(), pair()
    return Ends(left[0], left[1], right[1], right[0])
