"""A flow that Python moves: what does it cost by callbacks, by tasks, and by asyncio's own streams,
and what when it is handed down to the engine?"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from benchmarks.failure import BenchmarkError
from benchmarks.peers import Peer
from benchmarks.question import Absolute, Question, Sample, Series, Setting
from qanat.stack.relaying import relay
from qanat.stack.stream.base import Stream
from qanat.stack.stream.sockets import TcpStream

__all__ = ["QUESTION"]

_WAYS = {
    "push": "callbacks",
    "pull": "tasks",
    "streams": "asyncio streams",
    "engine": "handed down",
}
_CONNECTIONS = 16
_MESSAGE = 512
_GIB = 1 << 30


def _bulk(way: str) -> str:
    return f"Python relay, {_WAYS[way]}, bulk: CPU of the relay"


def _small(way: str) -> str:
    return f"Python relay, {_WAYS[way]}, 512 B there and back: CPU of the relay"


class _Seen(Stream):
    """A layer that the bytes must pass, so that the relay has to use tasks."""

    __slots__ = ("_inner",)

    def __init__(self, inner: TcpStream) -> None:
        super().__init__(inner.ext)
        self._inner = inner

    async def _receive(self, max_bytes: int) -> bytes:
        return await self._inner.read(max_bytes)

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.write(data)

    async def _send_eof(self) -> None:
        await self._inner.write_eof()

    async def _close(self) -> None:
        await self._inner.aclose()

    def abort(self) -> None:
        self._inner.abort()


async def _by_asyncio(client: socket.socket, target: socket.socket) -> None:
    """The relay that everybody writes first."""

    async def direction(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.write_eof()

    near, to_near = await asyncio.open_connection(sock=client)
    far, to_far = await asyncio.open_connection(sock=target)
    await asyncio.gather(direction(near, to_far), direction(far, to_near))
    to_near.close()
    to_far.close()


async def _by_us(way: str, client: socket.socket, target: socket.socket) -> None:
    near, far = TcpStream(client), TcpStream(target)
    await relay(_Seen(near) if way == "pull" else near, far, lower=way == "engine")


async def _serve(way: str, descriptors: list[int]) -> None:
    """Relay the pairs of inherited sockets, then tell the CPU that it took."""
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for sock in sockets:
        sock.setblocking(False)
    pairs = list(zip(sockets[::2], sockets[1::2], strict=True))
    before = _cpu()
    moving: list[Awaitable[None]] = [
        _by_asyncio(*pair) if way == "streams" else _by_us(way, *pair) for pair in pairs
    ]
    await asyncio.gather(*moving)
    json.dump(_cpu() - before, sys.stdout)


def _cpu() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    for sock in (ours, theirs):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(30)
    return ours, theirs


_Load = Callable[[list[socket.socket], list[socket.socket]], None]


def _measured(way: str, connections: int, load: _Load) -> float:
    """Seconds of CPU that a relay process takes under a load."""
    clients, nears = zip(*(_connected() for _ in range(connections)), strict=True)
    targets, fars = zip(*(_connected() for _ in range(connections)), strict=True)
    given = [sock for pair in zip(nears, fars, strict=True) for sock in pair]
    words = [str(sock.fileno()) for sock in given]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.python_relay", way, *words],
        pass_fds=[sock.fileno() for sock in given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for sock in given:
            sock.close()
        load(list(clients), list(targets))
        for sock in clients + targets:
            sock.shutdown(socket.SHUT_WR)
        out, err = process.communicate(timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        process.kill()
        _, err = process.communicate()
        raise BenchmarkError(f"{way}: {error}: {err.strip()}") from error
    finally:
        for sock in clients + targets:
            sock.close()
    if process.returncode:
        raise BenchmarkError(f"{way}: {err.strip()}")
    return float(out)


def _one_way(size: int) -> _Load:
    def load(clients: list[socket.socket], targets: list[socket.socket]) -> None:
        def send() -> None:
            chunk = bytes(1 << 18)
            for _ in range(size // len(chunk)):
                clients[0].sendall(chunk)

        sending = threading.Thread(target=send)
        sending.start()
        buffer, left = bytearray(1 << 20), size
        while left:
            count = targets[0].recv_into(buffer)
            if not count:
                raise ConnectionError("the relay ended early")
            left -= count
        sending.join()

    return load


def _there_and_back(rounds: int) -> _Load:
    def load(clients: list[socket.socket], targets: list[socket.socket]) -> None:
        message = bytes(_MESSAGE)
        for _ in range(rounds):
            for client in clients:
                client.sendall(message)
            for target in targets:
                target.sendall(target.recv(_MESSAGE, socket.MSG_WAITALL))
            for client in clients:
                if len(client.recv(_MESSAGE, socket.MSG_WAITALL)) != _MESSAGE:
                    raise ConnectionError("the relay ended early")

    return load


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    size = _GIB // 64 if setting.quick else _GIB // 2
    rounds = 20 if setting.quick else 1_000

    def sample() -> dict[str, float]:
        taken = {}
        for way in _WAYS:
            bulk = _measured(way, 1, _one_way(size))
            taken[_bulk(way)] = bulk * _GIB / size
            small = _measured(way, _CONNECTIONS, _there_and_back(rounds))
            taken[_small(way)] = small / (rounds * _CONNECTIONS) * 1e6
        return taken

    yield sample


QUESTION = Question(
    name="python_relay",
    text=__doc__,
    series=(
        *(Series(_bulk(way), "s/GiB", "less", 2) for way in _WAYS),
        *(Series(_small(way), "us", "less", 1) for way in _WAYS),
    ),
    bars=(Absolute(_bulk("push"), 0.53), Absolute(_small("push"), 26.0)),
    peers=("qanat",),
    open=_open,
    warm=False,
    rounds=3,
)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], [int(word) for word in sys.argv[2:]]))
