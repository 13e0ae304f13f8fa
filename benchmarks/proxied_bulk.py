"""Bulk through SOCKS5 and CONNECT: what does it cost beside the plain relay?"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks import generator, measure
from benchmarks.failure import BenchmarkError
from benchmarks.peers import Peer, Qanat
from benchmarks.proxies import ours
from benchmarks.question import Absolute, Question, Sample, Series, Setting
from benchmarks.relayed import site

__all__ = ["QUESTION"]

_GB = 1_000_000_000
_CHUNK = 1 << 20
_DIRECTIONS = ("up", "down")


def _share(kind: str, direction: str) -> str:
    return f"{kind} bulk, {direction}: CPU against the plain relay"


def _cost(kind: str, direction: str) -> str:
    return f"{kind} bulk, {direction}: CPU"


_Opening = Callable[[str, str], socket.socket]


def _plain(way: str, target: str) -> socket.socket:
    host, _, port = way.rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _socks5(way: str, target: str) -> socket.socket:
    sock = _plain(way, target)
    host, _, port = target.rpartition(":")
    sock.sendall(b"\5\1\0\5\1\0\1" + socket.inet_aton(host) + struct.pack("!H", int(port)))
    _expect(sock, 12, b"\5\0\5\0")
    return sock


def _connect(way: str, target: str) -> socket.socket:
    sock = _plain(way, target)
    sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    if not head.startswith(b"HTTP/1.1 200"):
        raise BenchmarkError(head.decode("latin-1"))
    return sock


def _expect(sock: socket.socket, count: int, begin: bytes) -> None:
    answer = b""
    while len(answer) < count and (part := sock.recv(count - len(answer))):
        answer += part
    if not answer.startswith(begin):
        raise BenchmarkError(f"the proxy answered {answer!r}")


_KINDS: dict[str, _Opening] = {"plain": _plain, "SOCKS5": _socks5, "CONNECT": _connect}


def _move(sock: socket.socket, direction: str, size: int) -> None:
    buffer = memoryview(bytearray(_CHUNK))
    left = size
    while left > 0:
        if direction == "up":
            left -= sock.send(buffer)
        else:
            # The kernel throws it away, so that the load costs little.
            count = sock.recv_into(buffer, _CHUNK, socket.MSG_TRUNC)
            if not count:
                raise BenchmarkError("the flow ended early")
            left -= count


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    assert isinstance(peer, Qanat)
    size = _GB // 50 if setting.quick else 4 * _GB
    with (
        site(peer, "discard", "source") as here,
        generator.targets("discard", "source") as targets,
        ours(peer, "mixed") as (port, pid),
    ):

        def once(kind: str, direction: str) -> float:
            role = "discard" if direction == "up" else "source"
            way = here.address(role) if kind == "plain" else f"127.0.0.1:{port}"
            cpu = here.relaying.cpu_seconds if kind == "plain" else lambda: measure.cpu_seconds(pid)
            before = cpu()
            with _KINDS[kind](way, targets[role]) as sock:
                _move(sock, direction, size)
            return (cpu() - before) / (size / _GB)

        def sample() -> dict[str, float]:
            values: dict[str, float] = {}
            for direction in _DIRECTIONS:
                for kind in _KINDS:
                    values[_cost(kind, direction)] = once(kind, direction)
                for kind in _KINDS:
                    if kind != "plain":
                        share = values[_cost(kind, direction)] / values[_cost("plain", direction)]
                        values[_share(kind, direction)] = share
            return values

        yield sample


_PROXIED = [(kind, direction) for kind in _KINDS if kind != "plain" for direction in _DIRECTIONS]

QUESTION = Question(
    name="proxied_bulk",
    text=__doc__,
    series=(
        *(Series(_share(*case), "", "less", 2) for case in _PROXIED),
        *(Series(_cost(kind, way), "s/GB", "less", 3) for kind in _KINDS for way in _DIRECTIONS),
    ),
    bars=tuple(Absolute(_share(*case), 1.1) for case in _PROXIED),
    peers=("qanat",),
    open=_open,
)
