"""Every scenario of a relayed flow, moved in every way: the outcome and the report are the same."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from qanat.stack.errors import StreamBroken
from qanat.stack.relaying import RelayReport, relay
from qanat.stack.stream.base import Stream
from qanat.stack.stream.sockets import SocketStream

from .pairs import Ends, ends

__all__: list[str] = []

BIG = bytes(range(256)) * 8192
"""2 MiB: more than every buffer on the way."""

WAYS = ["engine", "push", "unix engine", "unix push", "memory", "memory 1", "memory 7"]


async def read_all(stream: Stream) -> bytes:
    parts = []
    while part := await stream.read():
        parts.append(part)
    return b"".join(parts)


async def is_cut(stream: Stream) -> bool:
    """Whether the other side ends it for good. Unix sockets know no reset: they only end."""
    try:
        if await stream.read() == b"":
            while True:
                await stream.write(b"x" * 65536)
    except StreamBroken:
        return True
    return False


WITH_RESET = [way for way in WAYS if not way.startswith("unix")]

Scenario = Callable[[Ends], Awaitable[None]]


async def relayed(way: str, scenario: Scenario, **limits: float) -> RelayReport:
    kind, *rest = way.split()
    chunk = int(rest[0]) if kind == "memory" and rest else None
    made = ends({"engine": "tcp", "push": "tcp"}.get(kind, kind), chunk)
    lower = "engine" in way
    try:
        async with asyncio.TaskGroup() as group:
            moving = group.create_task(relay(made.near, made.far, lower=lower, **limits))
            await scenario(made)
        report = moving.result()
    finally:
        made.abort()
    assert report.lowered == lower
    return report


async def exchange(made: Ends) -> None:
    """The client asks and ends, the target answers and ends."""
    await made.client.write(b"question")
    await made.client.write_eof()
    assert await read_all(made.target) == b"question"
    await made.target.write(b"the answer")
    await made.target.write_eof()
    assert await read_all(made.client) == b"the answer"


@pytest.mark.parametrize("way", WAYS)
def test_half_close_of_the_client_is_carried_over(run: Any, way: str) -> None:
    report = run(relayed(way, exchange))
    assert (report.reason, report.bytes_up, report.bytes_down) == ("client_closed", 8, 10)


@pytest.mark.parametrize("way", WAYS)
def test_half_close_of_the_target_is_carried_over(run: Any, way: str) -> None:
    async def scenario(made: Ends) -> None:
        await made.target.write(b"banner")
        await made.target.write_eof()
        assert await read_all(made.client) == b"banner"
        await made.client.write(b"a late word")
        await made.client.write_eof()
        assert await read_all(made.target) == b"a late word"

    report = run(relayed(way, scenario))
    assert (report.reason, report.bytes_up, report.bytes_down) == ("target_closed", 11, 6)


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("memory 1", "memory 7")])
def test_bulk_in_both_directions_at_once(run: Any, way: str) -> None:
    async def side(stream: Stream) -> bytes:
        async def write() -> None:
            await stream.write(BIG)
            await stream.write_eof()

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            read = group.create_task(read_all(stream))
        return read.result()

    async def scenario(made: Ends) -> None:
        got = tuple(await asyncio.gather(side(made.client), side(made.target)))
        assert got == (BIG, BIG)

    report = run(relayed(way, scenario))
    assert report.reason in ("client_closed", "target_closed")
    assert (report.bytes_up, report.bytes_down) == (len(BIG), len(BIG))


@pytest.mark.parametrize("way", WAYS)
def test_what_was_read_and_put_back_goes_first_both_ways(run: Any, way: str) -> None:
    async def scenario(made: Ends) -> None:
        await exchange(made)

    async def started(way: str) -> RelayReport:
        async def with_unread(made: Ends) -> None:
            assert await read_all(made.target) == b"peeked, and more"
            await made.target.write_eof()
            assert await read_all(made.client) == b"hello"

        kind = way.split()[0]
        made = ends({"engine": "tcp", "push": "tcp"}.get(kind, kind))
        await made.client.write(b"peeked")
        seen = await made.near.peek()
        assert b"peeked".startswith(seen)
        await made.target.write(b"hello")
        made.far.unread(await made.far.read(5))
        await made.client.write(b", and more")
        await made.client.write_eof()
        try:
            async with asyncio.TaskGroup() as group:
                moving = group.create_task(relay(made.near, made.far, lower="engine" in way))
                await with_unread(made)
        finally:
            made.abort()
        return moving.result()

    report = run(started(way))
    assert (report.reason, report.bytes_up, report.bytes_down) == ("client_closed", 16, 5)


@pytest.mark.parametrize("way", WITH_RESET)
@pytest.mark.parametrize("side", ["client", "target"])
def test_a_reset_goes_through(run: Any, way: str, side: str) -> None:
    async def scenario(made: Ends) -> None:
        await made.client.write(b"x")
        assert await made.target.read() == b"x"
        one, other = made.client, made.target
        if side == "target":
            one, other = other, one
        one.abort()
        with pytest.raises(StreamBroken):
            await other.read()

    report = run(relayed(way, scenario))
    assert report.reason == f"{side}_reset"
    assert (report.bytes_up, report.bytes_down) == (1, 0)


@pytest.mark.parametrize("way", ["engine", "push", "memory"])
def test_an_answer_gets_through_while_the_client_still_sends(run: Any, way: str) -> None:
    async def scenario(made: Ends) -> None:
        async def upload() -> None:
            with suppress(StreamBroken):
                while True:
                    await made.client.write(b"u" * 65536)

        async with asyncio.TaskGroup() as group:
            sending = group.create_task(upload())
            await made.target.read(10)
            await made.target.write(b"413 too much")
            # Closed with most of the upload unread: the kernel resets behind the answer.
            await made.target.aclose()
            assert await made.client.read_exactly(12) == b"413 too much"
            # Who hears of the reset, the reader or the writer, is a matter of luck.
            with suppress(StreamBroken):
                assert await made.client.read() == b""
            sending.cancel()
            await asyncio.wait({sending})
            await made.client.aclose()

    report = run(relayed(way, scenario))
    assert report.bytes_down == len(b"413 too much")
    assert report.reason in ("target_closed", "target_reset", "client_reset")


@pytest.mark.parametrize("way", WAYS)
def test_idle_flows_end(run: Any, way: str) -> None:
    async def scenario(made: Ends) -> None:
        await made.client.write(b"x")
        assert await made.target.read() == b"x"
        assert await is_cut(made.client)

    report = run(relayed(way, scenario, idle=0.2))
    assert (report.reason, report.bytes_up) == ("idle_timeout", 1)
    # Two times of the loop's clock, whose difference is not exact.
    assert report.seconds >= 0.2 - 1e-6


@pytest.mark.parametrize("way", WAYS)
def test_a_side_that_goes_on_alone_without_progress_is_cut(run: Any, way: str) -> None:
    async def scenario(made: Ends) -> None:
        await made.client.write_eof()
        assert await made.target.read() == b""
        assert await is_cut(made.target)

    report = run(relayed(way, scenario, linger=0.2))
    assert report.reason == "linger_timeout"


@pytest.mark.parametrize("way", ["engine", "push", "unix push", "memory"])
def test_a_slow_reader_slows_its_writer_and_gets_everything(run: Any, way: str) -> None:
    async def scenario(made: Ends) -> None:
        sent = 0
        if isinstance(made.target, SocketStream):
            # What is left is far less than what is sent, whatever the kernel grants the two sockets
            # in the middle: up to 32 MiB and 4 MiB.
            made.target.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)

        async def send() -> None:
            nonlocal sent
            for _ in range(32):
                await made.client.write(BIG)
                sent += len(BIG)
            await made.client.write_eof()

        sending = asyncio.ensure_future(send())
        got = len(await made.target.read_exactly(1000))
        # Nobody reads now: the writer must come to rest, with most of it unsent.
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.1)
        assert not sending.done()
        while part := await made.target.read():
            assert part == (BIG * 2)[got % 256 : got % 256 + len(part)]
            got += len(part)
        await sending
        assert got == 32 * len(BIG)
        await made.target.write_eof()

    report = run(relayed(way, scenario))
    assert (report.reason, report.bytes_up) == ("client_closed", 32 * len(BIG))


@pytest.mark.parametrize("way", WAYS)
def test_cancelled_it_resets_both_sides(run: Any, way: str) -> None:
    async def scenario() -> None:
        kind = way.split()[0]
        made = ends({"engine": "tcp", "push": "tcp"}.get(kind, kind))
        moving = asyncio.ensure_future(relay(made.near, made.far, lower="engine" in way))
        await made.client.write(b"x")
        assert await made.target.read() == b"x"
        moving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await moving
        for side in (made.client, made.target):
            assert await is_cut(side)
        made.abort()

    run(scenario())
