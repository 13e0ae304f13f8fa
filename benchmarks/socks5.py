"""SOCKS5 clients that connect, send 64 bytes, get them back and close: how many a second, and what
does one cost the proxy?

``python -m benchmarks.socks5 [NAME...]``; proxies are looked for on PATH. The client is plain
Python in processes of its own, so the rate of a fast proxy is the client's; the CPU time of the
proxy for each connection is not.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import generator, measure
from benchmarks.failure import BenchmarkError
from benchmarks.peers import free_port
from benchmarks.proxies import Commands, running

__all__ = ["main"]

_CLIENTS = 2
_PAYLOAD = bytes(64)


def _ours(port: int, folder: Path) -> list[list[str]]:
    word = [sys.executable, "-m", "benchmarks.socks5", "--serve", str(port)]
    return [word, word]


def _microsocks(port: int, folder: Path) -> list[list[str]]:
    return [["microsocks", "-i", "127.0.0.1", "-p", str(port)]]


def _danted(port: int, folder: Path) -> list[list[str]]:
    conf = folder / "danted.conf"
    conf.write_text(
        f"""
logoutput: /dev/null
internal: 127.0.0.1 port = {port}
external: lo
socksmethod: none
clientmethod: none
user.unprivileged: nobody
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
"""
    )
    return [["danted", "-f", str(conf), "-p", str(folder / "danted.pid"), "-N", "2"]]


def _pproxy(port: int, folder: Path) -> list[list[str]]:
    return [["pproxy", "-l", f"socks5://127.0.0.1:{port}"]]


def _asyncio_socks_server(port: int, folder: Path) -> list[list[str]]:
    return [["asyncio_socks_server", "-H", "127.0.0.1", "-P", str(port)]]


PROXIES: dict[str, Commands] = {
    "qanat": _ours,
    "microsocks": _microsocks,
    "danted": _danted,
    "pproxy": _pproxy,
    "asyncio_socks_server": _asyncio_socks_server,
}


async def _serve(port: int) -> None:
    from qanat.proxy.socks5 import Socks5Server
    from qanat.stack.connect.guard import Guard
    from qanat.stack.connect.happy_eyeballs import HappyEyeballs
    from qanat.stack.connect.resolve import Resolve
    from qanat.stack.connect.tcp import TcpConnector
    from qanat.stack.server import open_server
    from qanat.stack.service import stack

    connect = stack(Resolve(), Guard(), HappyEyeballs(), TcpConnector())
    async with open_server(drain=0.1) as server:
        server.tcp(f"127.0.0.1:{port}", Socks5Server(connect), reuse_port=True)
        await server.run()


def _connections(proxy: int, target: int, seconds: float) -> tuple[int, int]:
    """How many went well, and how many did not, one after the other."""
    request = b"\x05\x01\x00\x01\x7f\x00\x00\x01" + target.to_bytes(2, "big")
    good = bad = 0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        with socket.socket() as sock:
            sock.settimeout(5)
            try:
                sock.connect(("127.0.0.1", proxy))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.sendall(b"\x05\x01\x00")
                ok = sock.recv(2) == b"\x05\x00"
                sock.sendall(request)
                ok = ok and sock.recv(10)[:2] == b"\x05\x00"
                sock.sendall(_PAYLOAD)
                left = len(_PAYLOAD)
                while left and (data := sock.recv(left)):
                    left -= len(data)
            except OSError:
                bad += 1
                continue
        if ok and not left:
            good += 1
        else:
            bad += 1
    return good, bad


def _sample(name: str, target: int, seconds: float) -> str:
    port = free_port()
    with running(name, PROXIES[name], port) as started, multiprocessing.Pool(_CLIENTS) as clients:
        clients.starmap(_connections, [(port, target, 0.3)] * _CLIENTS)
        before = sum(measure.cpu_seconds(one.pid) for one in started)
        counts = clients.starmap(_connections, [(port, target, seconds)] * _CLIENTS)
        cpu = sum(measure.cpu_seconds(one.pid) for one in started) - before
    good, bad = (sum(column) for column in zip(*counts, strict=True))
    each = cpu / good * 1e6 if good else float("nan")
    failed = f", {bad} failed" if bad else ""
    return f"{name:22} {good / seconds:8.0f}/s  {each:8.1f} µs of CPU each{failed}"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.socks5", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *PROXIES], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.serve is not None:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(given.serve))
        return 0
    with generator.targets("echo") as targets:
        target = int(targets["echo"].rpartition(":")[2])
        for _ in range(given.rounds):
            for name in given.names or PROXIES:
                try:
                    print(_sample(name, target, given.seconds), flush=True)
                except BenchmarkError as error:
                    print(f"{name:22} {error}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
