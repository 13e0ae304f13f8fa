"""HTTP clients that ask a proxy for small pages over kept connections: how many requests a second,
and what does one cost the proxy?

``python -m benchmarks.http_forward [NAME...]``; proxies are looked for on PATH. Clients and server
are plain Python in processes of their own, so the rate of a fast proxy is theirs; the CPU time of
the proxy for each request is not.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.failure import BenchmarkError
from benchmarks.peers import free_port
from benchmarks.proxies import Commands, running

__all__ = ["main"]

_CLIENTS = 2
_EACH = 8
"""Connections of one client, used in turn."""
_BODY = b"x" * 200
_LAST_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\nConnection: close\r\n\r\n" + _BODY
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 200\r\n\r\n" + _BODY


def _ours(port: int, folder: Path) -> list[list[str]]:
    words = [sys.executable, "-m", "qanat", "proxy", "--http", f"127.0.0.1:{port}"]
    return [[*words, "--control", "off", "--log-level", "warn"]]


def _tinyproxy(port: int, folder: Path) -> list[list[str]]:
    conf = folder / "tinyproxy.conf"
    conf.write_text(
        f"Port {port}\nListen 127.0.0.1\nTimeout 60\nLogLevel Critical\nMaxClients 100\n"
        f'LogFile "{folder}/log"\n'
    )
    return [["tinyproxy", "-d", "-c", str(conf)]]


def _proxy_py(port: int, folder: Path) -> list[list[str]]:
    words = ["proxy", "--hostname", "127.0.0.1", "--port", str(port), "--log-level", "CRITICAL"]
    return [[*words, "--num-workers", "1", "--num-acceptors", "1"]]


PROXIES: dict[str, Commands] = {"qanat": _ours, "tinyproxy": _tinyproxy, "proxy.py": _proxy_py}


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


def _requests(proxy: int, target: int, seconds: float) -> int:
    request = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (target, target)

    def connected() -> socket.socket:
        return socket.create_connection(("127.0.0.1", proxy), timeout=10)

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


def _sample(name: str, target: int, seconds: float) -> str:
    port = free_port()
    with running(name, PROXIES[name], port) as started, multiprocessing.Pool(_CLIENTS) as clients:
        try:
            clients.starmap(_requests, [(port, target, 0.3)] * _CLIENTS)
            before = sum(measure.cpu_seconds(one.pid) for one in started)
            counts = clients.starmap(_requests, [(port, target, seconds)] * _CLIENTS)
        except OSError as error:
            raise BenchmarkError(str(error)) from None
        cpu = sum(measure.cpu_seconds(one.pid) for one in started) - before
    total = sum(counts)
    return f"{name:22} {total / seconds:8.0f}/s  {cpu / total * 1e6:8.1f} µs of CPU each"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http_forward", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *PROXIES], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args(words)
    with _target() as target:
        for _ in range(given.rounds):
            for name in given.names or PROXIES:
                try:
                    print(_sample(name, target, given.seconds), flush=True)
                except BenchmarkError as error:
                    print(f"{name:22} {error}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
