"""HTTP clients that ask a proxy for small pages over kept connections: how many requests a second,
and what does one cost the proxy?

Clients and server are plain Python in processes of their own, so that the rate of a fast proxy is
theirs; what a request costs the proxy is not. ``direct`` are the same clients without a proxy.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

from benchmarks.failure import BenchmarkError
from benchmarks.peers import Peer
from benchmarks.proxies import asked_by_clients
from benchmarks.question import Question, Ratio, Sample, Series, Setting

__all__ = ["QUESTION"]

_RATE: Final = "HTTP request over a kept connection: rate"
_COST: Final = "HTTP request over a kept connection: CPU"
_EACH = 8
"""Connections of one client, used in turn."""
_BODY = b"x" * 200
_LAST_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\nConnection: close\r\n\r\n" + _BODY
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 200\r\n\r\n" + _BODY


class _Answering(asyncio.Protocol):
    """Heads without bodies, of which each gets the same answer."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        self._seen += data
        count = self._seen.count(b"\r\n\r\n")
        if count and b"\r\nconnection: close" in self._seen.lower():
            self._transport.write(_LAST_ANSWER)
            self._transport.close()
        elif count:
            self._seen = self._seen.rpartition(b"\r\n\r\n")[2]
            self._transport.write(_ANSWER * count)


def _site(told: Connection) -> None:
    import uvloop

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def _answer(sock: socket.socket) -> bool:
    """Whether the connection may be used once more."""
    seen = b""
    while True:
        part = sock.recv(65536)
        if not part:
            raise ConnectionResetError("the proxy ended the connection")
        seen += part
        head, found, body = seen.partition(b"\r\n\r\n")
        if found and len(body) >= len(_BODY):
            if not head[8:].startswith(b" 200") or body != _BODY:
                raise OSError(f"an answer that begins with {head[:40]!r}")
            return b"\r\nconnection: close" not in head.lower() and head.startswith(b"HTTP/1.1")


def _requests(port: int, url: bytes, seconds: float) -> int:
    request = b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % url

    def connected() -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), timeout=10)

    socks = [connected() for _ in range(_EACH)]
    try:
        count = 0
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            for sock in socks:
                sock.sendall(request)
            for index, sock in enumerate(socks):
                try:
                    keeps = _answer(sock)
                except ConnectionError:
                    # Some keep no connection, and don't say so.
                    sock.close()
                    socks[index] = sock = connected()
                    sock.sendall(request)
                    keeps = _answer(sock)
                if not keeps:
                    sock.close()
                    socks[index] = connected()
            count += len(socks)
        return count
    finally:
        for sock in socks:
            sock.close()


@contextmanager
def _target() -> Iterator[int]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_site, args=(theirs,), daemon=True)
    process.start()
    try:
        if not ours.poll(10):
            raise BenchmarkError("the site does not come up")
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def _through(proxy: int, target: int, seconds: float) -> int:
    return _requests(proxy, b"http://127.0.0.1:%d/" % target, seconds)


def _direct(proxy: int, target: int, seconds: float) -> int:
    return _requests(target, b"/", seconds)


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    with _target() as target:
        names = (_RATE, _COST)
        with asked_by_clients(peer, setting, "http", target, (_through, _direct), names) as sample:
            yield sample


QUESTION = Question(
    name="http_forward",
    text="How many small pages a second go through an HTTP proxy, and what does each cost?",
    series=(Series(_RATE, "1/s", "more", 0), Series(_COST, "µs", "less", 1)),
    bars=(Ratio(_RATE, 3.0, ("proxy.py",)), Ratio(_RATE, 0.5, ("tinyproxy",))),
    peers=("qanat", "tinyproxy", "proxy.py", "direct"),
    open=_open,
    warm=False,
)
