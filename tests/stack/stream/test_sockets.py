"""Streams over sockets: order, back-pressure, ends, cancellation, and what is left behind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from qanat.stack.errors import ConcurrentUse, IncompleteRead, LocalProtocolError, StreamBroken
from qanat.stack.stream.sockets import SocketStream, TcpStream, detach_both
from tests.stack.pairs import tcp_pair, tcp_sockets, unix_pair
from tests.support.wait import wait_until_async

__all__: list[str] = []

BIG = bytes(range(256)) * 16384
"""4 MiB: more than the kernel takes for one socket."""

Pair = Callable[[], tuple[SocketStream, SocketStream]]


@pytest.fixture(params=[tcp_pair, unix_pair], ids=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Pair:
    made: Pair = request.param
    return made


def test_bytes_arrive_and_the_end_comes_again_and_again(run: Any, pair: Pair) -> None:
    async def scenario() -> None:
        one, other = pair()
        await one.write(b"hello, ")
        await one.write(bytearray(b"world"))
        await one.write_eof()
        await one.write_eof()
        assert await other.read_exactly(12) == b"hello, world"
        assert [await other.read(), await other.read()] == [b"", b""]
        await other.write(b"back")
        assert await one.read_exactly(4) == b"back"
        await other.aclose()
        await one.aclose()
        assert one.closed
        assert other.closed

    run(scenario())


def test_a_write_waits_for_the_reader_and_the_buffer_may_be_reused(run: Any, pair: Pair) -> None:
    async def scenario() -> None:
        one, other = pair()
        buffer = bytearray(BIG)

        async def write() -> None:
            await one.write(buffer)
            buffer[:] = bytes(len(buffer))
            await one.write_eof()

        writing = asyncio.ensure_future(write())
        await wait_until_async(lambda: one._writer is not None)
        assert not writing.done()
        got = bytearray()
        while part := await other.read():
            got += part
        await writing
        assert got == BIG
        await other.aclose()
        await one.aclose()

    run(scenario())


def test_wide_items_are_written_as_bytes(run: Any, pair: Pair) -> None:
    async def scenario() -> None:
        one, other = pair()
        reading = asyncio.ensure_future(other.read_exactly(len(BIG)))
        await one.write(memoryview(BIG).cast("I"))
        assert await reading == BIG
        one.abort()
        other.abort()

    run(scenario())


def test_a_reset_is_told_to_a_waiting_reader_and_to_writers(run: Any) -> None:
    async def scenario() -> None:
        one, other = tcp_pair()
        reading = asyncio.ensure_future(other.read())
        await wait_until_async(lambda: other._reader is not None)
        one.abort()
        one.abort()
        with pytest.raises(StreamBroken) as caught:
            await reading
        assert caught.value.reset
        with pytest.raises(StreamBroken):
            await other.write(b"x")
        await other.aclose()

    run(scenario())


def test_an_orderly_close_after_the_peers_end_is_no_reset(run: Any) -> None:
    async def scenario() -> None:
        one, other = tcp_pair()
        await one.write(b"last words")
        closing = asyncio.ensure_future(one.aclose())
        # Not read by ``one``: a plain close would reset and might take the last words away.
        await other.write(b"too late")
        assert await other.read_exactly(10) == b"last words"
        assert await other.read() == b""
        await other.aclose()
        await closing
        assert one.closed

    run(scenario())


def test_closing_does_not_wait_for_ever(run: Any, pair: Pair) -> None:
    async def scenario() -> None:
        one, other = pair()
        async with asyncio.timeout(10):
            await one.aclose()
        assert one.closed
        other.abort()

    run(scenario())


def test_closing_under_a_reader_ends_its_wait(run: Any, pair: Pair) -> None:
    async def scenario() -> None:
        one, other = pair()
        reading = asyncio.ensure_future(one.read())
        await wait_until_async(lambda: one._reader is not None)
        await one.aclose()
        with pytest.raises(StreamBroken, match="ourselves"):
            await reading
        for use in (one.read, one.write_eof, lambda: one.write(b"x")):
            with pytest.raises(LocalProtocolError):
                await use()
        other.abort()

    run(scenario())


@pytest.mark.parametrize("seen", [b"", b"abc"])
def test_what_comes_with_a_cancellation_is_kept_in_order(run: Any, pair: Pair, seen: bytes) -> None:
    async def scenario() -> None:
        one, other = pair()
        other.unread(seen)
        peeking = asyncio.ensure_future(other.peek(len(seen)))
        await wait_until_async(lambda: other._reader is not None)
        # The bytes come in the very turn of the loop in which the reader is told to stop.
        await one.write(b"def")
        while not _waiting(other.raw):
            pass
        other._readable()
        peeking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await peeking
        assert await other.read_exactly(len(seen) + 3) == seen + b"def"
        one.abort()
        other.abort()

    run(scenario())


def _waiting(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def test_a_second_reader_or_writer_is_told_so(run: Any, pair: Pair) -> None:
    async def scenario() -> None:
        one, other = pair()
        reading = asyncio.ensure_future(one.read())
        writing = asyncio.ensure_future(one.write(BIG))
        await wait_until_async(lambda: one._reader is not None and one._writer is not None)
        with pytest.raises(ConcurrentUse):
            await one.read()
        with pytest.raises(ConcurrentUse):
            await one.write(b"x")
        with pytest.raises(ConcurrentUse):
            one.detach()
        one.abort()
        other.abort()
        for task in (reading, writing):
            with pytest.raises(StreamBroken):
                await task

    run(scenario())


def test_an_end_within_a_message_is_told_with_what_came(run: Any, pair: Pair) -> None:
    async def scenario() -> None:
        one, other = pair()
        await one.write(b"abc")
        await one.write_eof()
        with pytest.raises(IncompleteRead) as caught:
            await other.read_exactly(4)
        assert caught.value.partial == b"abc"
        one.abort()
        other.abort()

    run(scenario())


def test_peeking_and_putting_back(run: Any, pair: Pair) -> None:
    async def scenario() -> None:
        one, other = pair()
        await one.write(b"ab")
        assert await other.peek() == b"ab"
        await one.write(b"cd")
        assert await other.peek(2) == b"abcd"
        assert await other.read(1) == b"a"
        other.unread(b"A")
        assert await other.read_exactly(4) == b"Abcd"
        await one.write_eof()
        assert await other.peek() == b""
        one.abort()
        other.abort()

    run(scenario())


def test_a_detached_socket_comes_with_what_was_put_back(run: Any, pair: Pair) -> None:
    async def scenario() -> None:
        one, other = pair()
        await one.write(b"abc")
        await other.peek()
        taken = other.detach()
        assert taken.unread == b"abc"
        assert other.closed
        with pytest.raises(LocalProtocolError):
            await other.read()
        other.reattach(taken)
        assert await other.read() == b"abc"
        one.abort()
        other.abort()

    run(scenario())


def test_two_are_detached_together_or_not_at_all(run: Any) -> None:
    async def scenario() -> None:
        one, other = tcp_pair()
        other.abort()
        with pytest.raises(LocalProtocolError):
            detach_both(one, other)
        assert not one.closed
        one.abort()

    run(scenario())


def test_a_busy_peer_does_not_keep_the_loop_for_itself(run: Any, pair: Pair) -> None:
    async def scenario() -> None:
        one, other = pair()
        turns = 0
        stop = False

        def turn() -> None:
            nonlocal turns
            turns += 1
            if not stop:
                asyncio.get_running_loop().call_soon(turn)

        await one.write(b"x" * 1000)
        asyncio.get_running_loop().call_soon(turn)
        for _ in range(1000):
            assert await other.read(1) == b"x"
        stop = True
        assert turns >= 1000 // 32
        one.abort()
        other.abort()

    run(scenario())


def test_descriptors_are_given_back(run: Any) -> None:
    async def scenario() -> None:
        ours, theirs = tcp_sockets()
        numbers = {ours.fileno(), theirs.fileno()}
        one, other = TcpStream(ours), TcpStream(theirs)
        await asyncio.gather(one.aclose(), other.aclose())
        again = tcp_sockets()
        assert {sock.fileno() for sock in again} == numbers
        for sock in again:
            sock.close()

    run(scenario())
