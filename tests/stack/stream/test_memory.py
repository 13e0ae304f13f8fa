"""Streams in memory behave as sockets do; the network in memory owns what it starts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.stack.address import Address
from qanat.stack.connect.target import ConnectTo
from qanat.stack.errors import ConnectError, LocalProtocolError, StreamBroken
from qanat.stack.facts import Listener, Peer
from qanat.stack.stream.base import Stream
from qanat.stack.stream.memory import MemoryNetwork, memory_pipe
from tests.support.wait import wait_until_async

__all__: list[str] = []

ECHO = Address("echo.test", 7)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)
    await stream.write_eof()


def test_half_close_leaves_the_other_direction(run: Any) -> None:
    async def scenario() -> None:
        one, other = memory_pipe()
        await one.write(b"question")
        await one.write_eof()
        assert [await other.read(), await other.read(), await other.read()] == [
            b"question",
            b"",
            b"",
        ]
        await other.write(b"answer")
        await other.aclose()
        assert [await one.read(), await one.read()] == [b"answer", b""]
        await one.aclose()

    run(scenario())


def test_a_writer_waits_when_the_pipe_is_full(run: Any) -> None:
    async def scenario() -> None:
        one, other = memory_pipe(capacity=10)
        buffer = bytearray(b"0123456789abcde")
        writing = asyncio.ensure_future(one.write(buffer))
        await wait_until_async(lambda: other._in.filled == 10)
        assert not writing.done()
        assert await other.read_exactly(15) == b"0123456789abcde"
        await writing
        one.abort()
        other.abort()

    run(scenario())


def test_a_writer_of_a_closed_pipe_is_told(run: Any) -> None:
    async def scenario() -> None:
        one, other = memory_pipe(capacity=4)
        writing = asyncio.ensure_future(one.write(b"12345678"))
        await wait_until_async(lambda: other._in.filled == 4)
        await other.aclose()
        with pytest.raises(StreamBroken):
            await writing
        await one.aclose()
        with pytest.raises(LocalProtocolError):
            await one.write(b"x")

    run(scenario())


def test_a_reset_takes_what_was_not_read(run: Any) -> None:
    async def scenario() -> None:
        one, other = memory_pipe()
        await one.write(b"lost")
        one.abort()
        for use in (other.read(), other.write(b"x")):
            with pytest.raises(StreamBroken):
                await use
        other.abort()

    run(scenario())


def test_a_reset_wakes_a_reader(run: Any) -> None:
    async def scenario() -> None:
        one, other = memory_pipe()
        reading = asyncio.ensure_future(other.read())
        await wait_until_async(lambda: bool(other._in.changed))
        one.abort()
        with pytest.raises(StreamBroken):
            await reading
        other.abort()

    run(scenario())


@given(
    parts=st.lists(st.binary(max_size=200), max_size=20),
    capacity=st.integers(1, 300),
    chunk=st.none() | st.integers(1, 50),
    most=st.integers(1, 300),
)
def test_all_bytes_come_once_and_in_order(
    parts: list[bytes], capacity: int, chunk: int | None, most: int
) -> None:
    async def scenario() -> None:
        one, other = memory_pipe(capacity, chunk)

        async def write() -> None:
            for part in parts:
                await one.write(part)
            await one.write_eof()

        writing = asyncio.ensure_future(write())
        got = []
        while part := await other.read(most):
            assert len(part) <= min(most, chunk or most)
            got.append(part)
        assert b"".join(got) == b"".join(parts)
        await writing

    asyncio.run(scenario())


def test_the_network_connects_by_address_and_tells_both_who_they_are(run: Any) -> None:
    async def scenario() -> None:
        seen: list[Stream] = []

        async def service(stream: Stream) -> None:
            seen.append(stream)
            await echo(stream)

        async with MemoryNetwork(chunk=1) as network:
            network.listen(ECHO, service)
            stream = await network.connector(ConnectTo(ECHO))
            await stream.write(b"hi")
            await stream.write_eof()
            assert [await stream.read() for _ in range(3)] == [b"h", b"i", b""]
            await stream.aclose()
            assert stream.ext.get(Peer) == Peer(ECHO)
            assert seen[0].ext.get(Listener) == Listener(ECHO)
            assert seen[0].ext.get(Peer) is not None
        assert network.errors == []

    run(scenario())


def test_checked_candidates_are_dialled_and_nobody_is_refused(run: Any) -> None:
    async def scenario() -> None:
        at = Address("192.0.2.9", 7)
        async with MemoryNetwork() as network:
            network.listen(at, echo)
            with pytest.raises(ConnectError) as caught:
                await network.connector(ConnectTo(ECHO))
            assert caught.value.kind == "refused"
            asked = ConnectTo(ECHO).with_candidates((Address("192.0.2.8", 7), at))
            stream = await network.connector(asked)
            await stream.write(b"x")
            assert await stream.read() == b"x"
            await stream.aclose()

    run(scenario())


def test_a_failing_service_resets_its_client_and_is_remembered(run: Any) -> None:
    async def scenario() -> None:
        async def fail(_: Stream) -> None:
            raise ValueError("on purpose")

        async with MemoryNetwork() as network:
            network.listen(ECHO, fail)
            stream = await network.connector(ConnectTo(ECHO))
            with pytest.raises(StreamBroken):
                await stream.read()
            await stream.aclose()
        assert [str(error) for error in network.errors] == ["on purpose"]

    run(scenario())


def test_leaving_the_network_ends_its_services(run: Any) -> None:
    async def scenario() -> None:
        async with MemoryNetwork() as network:
            network.listen(ECHO, echo)
            stream = await network.connector(ConnectTo(ECHO))
            await stream.write(b"x")
            assert await stream.read() == b"x"
        assert await stream.read() == b""
        await stream.aclose()

    run(scenario())
