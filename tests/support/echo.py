"""Targets to relay to, which echo what they get."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["echo_server", "udp_echo_server"]


@contextmanager
def echo_server(greeting: bytes = b"") -> Iterator[int]:
    """The port on 127.0.0.1; ``greeting`` comes first and tells one server from another."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        threading.Thread(target=_accept, args=(listener, greeting), daemon=True).start()
        yield listener.getsockname()[1]
        # Closing alone does not wake a thread that is in accept.
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def udp_echo_server() -> Iterator[int]:
    """The port on 127.0.0.1; each datagram goes back to where it came from, until an empty one."""
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        answering = threading.Thread(target=_answer, args=(server,), daemon=True)
        answering.start()
        yield server.getsockname()[1]
        with socket.socket(type=socket.SOCK_DGRAM) as last:
            last.sendto(b"", server.getsockname())
        answering.join(5)


def _answer(server: socket.socket) -> None:
    while True:
        datagram, client = server.recvfrom(65_536)
        if not datagram:
            return
        server.sendto(datagram, client)


def _accept(listener: socket.socket, greeting: bytes) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(client, greeting), daemon=True).start()


def _echo(client: socket.socket, greeting: bytes) -> None:
    with client:
        try:
            client.sendall(greeting)
            while received := client.recv(65_536):
                client.sendall(received)
        except OSError:
            return
