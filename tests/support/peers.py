"""Clients and targets of TCP flows, played by the test itself: plain sockets, and a thread where
both sides have to move at once.

Every wait has a limit, so that a broken relay fails a test instead of hanging it.
"""

from __future__ import annotations

import contextlib
import fcntl
import random
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from tests.support.wait import wait_until

__all__ = [
    "PATIENCE",
    "Address",
    "FullTarget",
    "Target",
    "beside",
    "connect",
    "end_writing",
    "flow",
    "hear",
    "is_gone",
    "is_reset",
    "pattern",
    "read_to_end",
    "reset",
    "resets",
    "send_until_full",
    "talk",
    "wait_delivered",
    "wait_unread",
]

PATIENCE = 15.0
"""Seconds that anything may take on a busy machine."""

Address = tuple[str, int]
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Target:
    """A listening socket whose connections the test takes one by one."""

    def __init__(self, host: str = "127.0.0.1", *, port: int = 0, backlog: int = 128) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, port), family=family, backlog=backlog)
        self.listener.settimeout(PATIENCE)
        self.port: int = self.listener.getsockname()[1]
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.listener.close()

    def accept(self) -> socket.socket:
        sock, _ = self.listener.accept()
        sock.settimeout(PATIENCE)
        return sock


class FullTarget(Target):
    """A target that takes no connection yet: its queue is full, and the kernel drops what comes.

    ``relieve`` empties the queue; the next try of a client is then taken (after a second, the first
    time).
    """

    def __init__(self) -> None:
        super().__init__(backlog=0)
        self._waiting: list[socket.socket] = []
        while True:
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", self.port))
            self._waiting.append(sock)
            if not select.select([], [sock], [], 0.1)[1]:
                return

    def relieve(self) -> None:
        for sock in self._waiting:
            sock.close()
        self._waiting = []
        self.listener.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.listener.accept()[0].close()
        self.listener.settimeout(PATIENCE)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.relieve()
        super().__exit__(kind, error, traceback)


def connect(address: Address) -> socket.socket:
    return socket.create_connection(address, timeout=PATIENCE)


@contextmanager
def flow(address: Address, target: Target) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a new flow through a relay: the client's and the target's."""
    with connect(address) as client, target.accept() as server:
        yield client, server


def pattern(length: int, seed: int = 0) -> bytes:
    """Bytes that show every loss, repetition and exchange."""
    return random.Random(seed).randbytes(length)


def hear(sock: socket.socket, length: int) -> bytes:
    """Exactly so many bytes; fewer only if the end comes before."""
    heard = bytearray()
    while len(heard) < length:
        piece = sock.recv(min(1 << 18, length - len(heard)))
        if not piece:
            break
        heard += piece
    return bytes(heard)


def read_to_end(sock: socket.socket) -> bytes:
    """All until an orderly end. :raises ConnectionResetError: it was not orderly."""
    heard = bytearray()
    while piece := sock.recv(1 << 18):
        heard += piece
    return bytes(heard)


def talk(client: socket.socket, server: socket.socket, said: bytes = b"hello") -> None:
    """Something from the client to the target and back."""
    client.sendall(said)
    assert hear(server, len(said)) == said
    server.sendall(said)
    assert hear(client, len(said)) == said


def end_writing(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_reset(sock: socket.socket) -> bool:
    """Whether the next thing that comes is a reset and not an end. What else comes is no answer."""
    try:
        heard = sock.recv(1 << 16)
    except ConnectionResetError:
        return True
    assert not heard, f"neither: {heard[:40]!r}"
    return False


def is_gone(sock: socket.socket) -> bool:
    """Whether writing fails before long: how a side that has read the end learns of a reset."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            sock.send(b"?")
        except (BrokenPipeError, ConnectionResetError):
            return True
        time.sleep(0.01)
    return False


def resets(address: Address) -> bool:
    """Whether a connection to this address is taken and then reset."""
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    with sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect(address)
        except ConnectionResetError:
            return True
        return is_reset(sock)


def send_until_full(sock: socket.socket, piece: bytes, quiet: float = 0.5) -> int:
    """Send until nothing more is taken for a while; how much was."""
    sent = 0
    before = sock.gettimeout()
    sock.settimeout(quiet)
    try:
        while True:
            sent += sock.send(piece)
    except TimeoutError:
        return sent
    finally:
        sock.settimeout(before)


def beside(
    call: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> Future[_Result]:
    """Run the call in a thread of its own; its result comes by ``result(timeout)``."""
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            future.set_result(call(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def wait_delivered(sock: socket.socket) -> None:
    """Wait until the peer's system has all that was written; closing then can't take it back."""

    def delivered() -> bool:
        left = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
        return left == bytes(4)

    wait_until(delivered, what="what was written has arrived")


def unread(sock: socket.socket) -> bool:
    """Whether something waits to be read."""
    before = sock.gettimeout()
    sock.settimeout(0)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        sock.settimeout(before)


def wait_unread(sock: socket.socket) -> None:
    wait_until(lambda: unread(sock), what="bytes have arrived")
