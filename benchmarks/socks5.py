"""SOCKS5 clients that connect, send 64 bytes, get them back and close: how many a second, and what
does one cost the proxy?

The clients are plain Python, so that the rate of a fast proxy is theirs; what a connection costs
the proxy is not. ``direct`` are the same clients without a proxy.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks import generator
from benchmarks.peers import Peer
from benchmarks.proxies import asked_by_clients
from benchmarks.question import Question, Ratio, Sample, Series, Setting

__all__ = ["QUESTION"]

_PAYLOAD: Final = bytes(64)
_RATE: Final = "SOCKS5 connection with 64 B there and back: rate"
_COST: Final = "SOCKS5 connection with 64 B there and back: CPU"


def _through(proxy: int, target: int, seconds: float) -> int:
    return _connections(proxy, b"\x05\x01\x00\x01\x7f\x00\x00\x01" + target.to_bytes(2), seconds)


def _direct(proxy: int, target: int, seconds: float) -> int:
    return _connections(target, None, seconds)


def _connections(port: int, request: bytes | None, seconds: float) -> int:
    """How many went well, one after the other."""
    good = 0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        with socket.socket() as sock:
            sock.settimeout(5)
            try:
                sock.connect(("127.0.0.1", port))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if request is not None:
                    sock.sendall(b"\x05\x01\x00")
                    if sock.recv(2) != b"\x05\x00":
                        continue
                    sock.sendall(request)
                    if sock.recv(10)[:2] != b"\x05\x00":
                        continue
                sock.sendall(_PAYLOAD)
                left = len(_PAYLOAD)
                while left and (data := sock.recv(left)):
                    left -= len(data)
            except OSError:
                continue
        good += not left
    return good


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    with generator.targets("echo") as targets:
        target = int(targets["echo"].rpartition(":")[2])
        names = (_RATE, _COST)
        with asked_by_clients(
            peer, setting, "socks5", target, (_through, _direct), names
        ) as sample:
            yield sample


QUESTION = Question(
    name="socks5",
    text="How many short connections a second go through SOCKS5, and what does each cost?",
    series=(Series(_RATE, "1/s", "more", 0), Series(_COST, "µs", "less", 0)),
    bars=(
        Ratio(_RATE, 0.6, ("microsocks",)),
        Ratio(_RATE, 0.6, ("dante",)),
        Ratio(_RATE, 3.0, ("asyncio-socks-server",)),
        Ratio(_RATE, 3.0, ("pproxy",)),
    ),
    peers=("qanat", "microsocks", "dante", "asyncio-socks-server", "pproxy", "direct"),
    open=_open,
    warm=False,
)
