"""A desk of the engine in tests: calls that wait for what they want to hear."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, TypeVar

from qanat._engine import Desk, Engine
from qanat.plan import JoinPlan, LimitsPlan, to_json

__all__ = ["Held", "descriptors", "pair", "read_all", "reset", "say"]

_Socket = TypeVar("_Socket", bound=socket.socket)

_LIMIT = 10.0


class Held:
    """An engine, a group, a desk of it, and an endpoint for flows."""

    def __init__(self, workers: int = 2, waiting: int = 65_536, limits: str = "{}") -> None:
        self.engine = Engine(workers)
        self.group = self.engine.open_group(limits)
        self.desk = Desk(self.engine, self.group, waiting)
        self.endpoint = self.desk.endpoint("proxy", "127.0.0.1:1080")
        self._heard: list[tuple[int, str, str]] = []
        self._sockets: list[socket.socket] = []
        self._closed = False
        self._closing = threading.Lock()

    def close(self) -> None:
        self.desk.shutdown()
        self.engine.shutdown()
        with self._closing:
            self._closed = True
        for sock in self._sockets:
            sock.close()

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Two ends of a connection, closed with the desk at the latest."""
        ends = pair()
        self._sockets += ends
        return ends

    def keep(self, sock: _Socket) -> _Socket:
        """To be closed with the desk at the latest; a thread may come with it later."""
        with self._closing:
            if not self._closed:
                self._sockets.append(sock)
                return sock
        sock.close()
        return sock

    def hear(self, handle: int, kind: str) -> Any:
        """Wait for a report and take it out; what it says."""
        until = time.monotonic() + _LIMIT
        while True:
            for index, (of, what, text) in enumerate(self._heard):
                if (of, what) == (handle, kind):
                    del self._heard[index]
                    return json.loads(text) if text else None
            left = until - time.monotonic()
            assert left > 0, f"no {kind} for {handle} among {self._heard}"
            select.select([self.desk], [], [], left)
            self._heard += self.desk.take()

    def heard(self) -> list[tuple[int, str, str]]:
        """What nobody has asked for yet."""
        self._heard += self.desk.take()
        return self._heard

    def read(self, leg: int, count: int) -> bytes:
        """So many bytes, or fewer at the end."""
        got = bytearray()
        while len(got) < count:
            part = self.desk.read(leg, count - len(got))
            if part is None:
                self.hear(leg, "readable")
            elif not part:
                break
            else:
                got += part
        return bytes(got)

    def write(self, leg: int, data: bytes) -> None:
        """All of it, however long it takes."""
        left = memoryview(data)
        while left:
            left = left[self.desk.write(leg, left) :]
            if left:
                self.hear(leg, "writable")

    def drain(self, leg: int) -> None:
        if not self.desk.drained(leg):
            self.hear(leg, "drained")

    def plan(self, **more: Any) -> str:
        return to_json(JoinPlan(**{"endpoint": self.endpoint, "target": "t.test:80", **more}))

    def flows(self) -> list[dict[str, Any]]:
        flows: list[dict[str, Any]] = json.loads(self.engine.flows(self.group))
        return flows

    def adopt(self, unread: bytes = b"") -> tuple[int, socket.socket]:
        """A leg, and the other end of it."""
        ours, theirs = self.pair()
        leg = self.desk.adopt(ours.fileno(), unread)
        ours.detach()
        return leg, theirs

    def lower(
        self, up: bytes = b"", down: bytes = b"", **more: Any
    ) -> tuple[int, socket.socket, socket.socket]:
        """A flow, its client and its target."""
        ours, client = self.pair()
        theirs, target = self.pair()
        flow = self.desk.lower(ours.fileno(), theirs.fileno(), self.plan(**more), up, down)
        ours.detach()
        theirs.detach()
        return flow, client, target

    @classmethod
    @contextlib.contextmanager
    def open(cls, **options: Any) -> Iterator[Held]:
        limits = options.pop("limits", None)
        held = cls(**options, limits=to_json(limits or LimitsPlan()))
        try:
            yield held
        finally:
            held.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection on loopback, of which the second waits at most for a while."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    other.settimeout(_LIMIT)
    return one, other


def read_all(sock: socket.socket) -> bytes:
    got = bytearray()
    while part := sock.recv(65_536):
        got += part
    return bytes(got)


def say(sock: socket.socket, data: bytes) -> None:
    """All of it, and the end."""
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def reset(sock: socket.socket) -> None:
    """Close so that the peer sees a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    sock.close()


def descriptors() -> set[tuple[str, str]]:
    """Every descriptor of this process and what it is."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return found
