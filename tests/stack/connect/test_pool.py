"""Connections that wait: which are handed out, which are ended, and how many there are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qanat.stack.connect.pool import Pool
from qanat.stack.errors import StreamBroken
from qanat.stack.stream.base import Stream
from qanat.stack.stream.memory import MemoryStream, memory_pipe
from qanat.stack.stream.sockets import TcpStream
from tests.stack.conftest import Run
from tests.stack.pairs import tcp_pair
from tests.support.wait import wait_until_async

__all__: list[str] = []

PATIENCE = 10.0
kinds = pytest.mark.parametrize("kind", ["tcp", "memory"])


def pair(kind: str) -> tuple[TcpStream, TcpStream] | tuple[MemoryStream, MemoryStream]:
    return tcp_pair() if kind == "tcp" else memory_pipe()


async def ended(stream: Stream) -> bool:
    """Whether the other side was ended, in whatever way."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await stream.read() == b""
        except StreamBroken:
            return True


@kinds
def test_it_comes_back(run: Run[Any], kind: str) -> None:
    async def exchange() -> None:
        async with Pool[str]() as pool:
            near, far = pair(kind)
            assert await pool.take("a") is None
            pool.put("a", near)
            await asyncio.sleep(0)
            assert await pool.take("b") is None
            assert await pool.take("a") is near
            assert await pool.take("a") is None
            await far.write(b"hello")
            assert await near.read() == b"hello"
            near.abort()
            far.abort()

    run(exchange())


@kinds
@pytest.mark.parametrize("how", ["end", "reset", "bytes"])
@pytest.mark.parametrize("when", ["before", "while it waits"])
def test_what_the_peer_touched_is_never_handed_out(
    run: Run[Any], kind: str, how: str, when: str
) -> None:
    async def exchange() -> None:
        async with Pool[str]() as pool:
            near, far = pair(kind)
            if when == "while it waits":
                pool.put("a", near)
                await asyncio.sleep(0)
            if how == "end":
                await far.write_eof()
            elif how == "reset":
                far.abort()
            else:
                await far.write(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            if when == "before":
                pool.put("a", near)
            if kind == "memory":
                # Its watch gets a turn; a socket is asked on the spot.
                await wait_until_async(lambda: len(pool) == 0)
            assert await pool.take("a") is None
            assert len(pool) == 0
            if how != "reset":
                assert await ended(far)
            far.abort()

    run(exchange())


@kinds
def test_both_bounds(run: Run[Any], kind: str) -> None:
    async def exchange() -> None:
        async with Pool[str](per_key=2, total=3) as pool:
            pairs = [pair(kind) for _ in range(5)]
            for key, (near, _) in zip("aaabb", pairs, strict=True):
                pool.put(key, near)
            assert len(pool) == 3
            # The first of "a" was too many of one key, the second too many in all.
            assert await ended(pairs[0][1])
            assert await ended(pairs[1][1])
            assert await pool.take("b") is pairs[4][0]
            assert await pool.take("b") is pairs[3][0]
            assert await pool.take("a") is pairs[2][0]
            for near, far in pairs:
                near.abort()
                far.abort()

    run(exchange())


@kinds
def test_they_end_with_their_time(run: Run[Any], kind: str) -> None:
    async def exchange() -> None:
        async with Pool[str](idle=0.02) as pool:
            near, far = pair(kind)
            pool.put("a", near)
            assert await ended(far)
            assert len(pool) == 0
            far.abort()

    run(exchange())


@kinds
def test_a_closed_pool_takes_nothing(run: Run[Any], kind: str) -> None:
    async def exchange() -> None:
        pool = Pool[str]()
        one, two = pair(kind), pair(kind)
        pool.put("a", one[0])
        await pool.aclose()
        pool.put("a", two[0])
        assert await ended(one[1])
        assert await ended(two[1])
        assert len(pool) == 0
        one[1].abort()
        two[1].abort()

    run(exchange())
