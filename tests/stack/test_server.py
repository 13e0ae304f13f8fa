"""The server: accepting, limits, mistakes of services, and an end that leaves nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qanat.stack.address import Address
from qanat.stack.errors import Denied, StreamBroken
from qanat.stack.facts import Accepted, Listener, Peer
from qanat.stack.leaves import Reject, discard, echo
from qanat.stack.listening import Listening
from qanat.stack.server import open_server
from qanat.stack.stream.base import Stream
from qanat.stack.stream.sockets import TcpStream, UnixStream

__all__: list[str] = []


async def dialled(listener: Listening) -> TcpStream:
    assert listener.address is not None
    # On loopback this does not wait for the listener's loop to accept.
    sock = socket.create_connection((listener.address.host, listener.address.port))
    sock.setblocking(False)
    return TcpStream(sock)


async def say(stream: Stream, text: bytes) -> bytes:
    await stream.write(text)
    return await stream.read_exactly(len(text))


async def until(condition: Callable[[], bool]) -> None:
    """The limit is that of the whole test."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.005)


async def closed(listener: Listening) -> None:
    """Wait until nobody can connect any more."""
    with pytest.raises(ConnectionRefusedError):
        while True:
            (await dialled(listener)).abort()
            await asyncio.sleep(0.005)


async def is_reset(stream: Stream) -> bool:
    try:
        return await stream.read() == b"" and False
    except StreamBroken as error:
        return error.reset


@pytest.mark.parametrize("where", ["127.0.0.1:0", "[::1]:0"])
def test_it_serves_and_tells_what_it_did(run: Any, where: str) -> None:
    async def scenario() -> None:
        async with open_server() as server:
            listener = server.tcp(where, echo, name="echo")
            assert listener.address is not None
            assert listener.address.port > 0
            stream = await dialled(listener)
            assert await say(stream, b"hello") == b"hello"
            assert (len(server.connections), listener.open) == (1, 1)
            await stream.write_eof()
            assert await stream.read() == b""
            await stream.aclose()
            server.shutdown()
            report = await server.run()
        assert (report.accepted, report.refused, report.failed, report.cut) == (1, 0, 0, 0)
        assert not report.forced
        assert (len(server.connections), listener.open) == (0, 0)

    run(scenario())


def test_facts_of_a_connection(run: Any) -> None:
    seen: list[Stream] = []

    async def remember(stream: Stream, /) -> None:
        seen.append(stream)
        await stream.write(b".")

    async def scenario() -> None:
        async with open_server() as server:
            listener = server.tcp("0.0.0.0:0", remember, name="any")
            assert listener.address is not None
            sock = socket.socket()
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", listener.address.port))
            stream = TcpStream(sock)
            assert await stream.read() == b"."
            ext = seen[0].ext
            assert ext.require(Peer).address == Address.of_socket(sock.getsockname())
            assert ext.require(Listener).name == "any"
            assert ext.require(Listener).address == Address("127.0.0.1", listener.address.port)
            assert ext.require(Accepted).at <= loop.time()
            await stream.aclose()

    run(scenario())


def test_a_unix_socket_replaces_the_one_of_a_dead_server(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def scenario() -> None:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        async with open_server() as server:
            server.unix(path, echo)
            assert path.stat().st_mode & 0o777 == 0o600
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, str(path))
            stream = UnixStream(sock)
            assert await say(stream, b"x") == b"x"
            await stream.aclose()
            with pytest.raises(OSError, match="in use"):
                server.unix(path, echo)
        assert not path.exists()

    run(scenario())


def test_over_the_limits_connections_are_reset_before_any_work(run: Any) -> None:
    async def scenario() -> None:
        async with open_server(max_conns=3, max_conns_per_client=2) as server:
            listener = server.tcp("127.0.0.1:0", echo)
            first = [await dialled(listener) for _ in range(2)]
            for stream in first:
                assert await say(stream, b"x") == b"x"
            third = await dialled(listener)
            assert await is_reset(third)
            third.abort()
            await first[0].write_eof()
            assert await first[0].read() == b""
            await first[0].aclose()
            fourth = await dialled(listener)
            while True:
                # The place is free once the task of the first one has ended.
                try:
                    assert await say(fourth, b"y") == b"y"
                    break
                except StreamBroken:
                    fourth.abort()
                    fourth = await dialled(listener)
            assert listener.refused >= 1
            fourth.abort()
            first[1].abort()

    run(scenario())


def test_a_failing_service_ends_its_own_connection_alone(
    run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def bad(stream: Stream, /) -> None:
        if await stream.read(1) == b"!":
            raise ZeroDivisionError("our mistake")
        raise Denied

    async def scenario() -> None:
        async with open_server() as server:
            listener = server.tcp("127.0.0.1:0", bad, name="bad")
            for word in (b"!", b"?", b"!"):
                stream = await dialled(listener)
                await stream.write(word)
                # Our own mistakes reset; what is told on purpose ends in order.
                assert await is_reset(stream) is (word == b"!")
                stream.abort()
            server.shutdown()
            assert (await server.run()).failed == 2

    with caplog.at_level(logging.INFO, logger="qanat.server"):
        run(scenario())
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert all(record.exc_info for record in errors)
    (denied,) = [record for record in caplog.records if "denied by policy" in record.message]
    assert not denied.exc_info


def test_the_drain_time_is_for_those_who_use_it(run: Any) -> None:
    async def scenario() -> None:
        async with open_server(drain=60) as server:
            listener = server.tcp("127.0.0.1:0", echo)
            stream = await dialled(listener)
            assert await say(stream, b"x") == b"x"
            server.shutdown()
            running = asyncio.ensure_future(server.run())
            await closed(listener)
            assert await say(stream, b"still there") == b"still there"
            await stream.write_eof()
            assert await stream.read() == b""
            report = await running
            assert (report.cut, report.forced) == (0, False)
            await stream.aclose()

    run(scenario())


def test_what_outlives_the_drain_time_is_cut(run: Any) -> None:
    async def scenario() -> None:
        async with open_server(drain=0.05) as server:
            listener = server.tcp("127.0.0.1:0", discard)
            stream = await dialled(listener)
            await stream.write(b"x")
            await until(lambda: bool(server.connections))
            server.shutdown()
            assert (await server.run()).cut == 1
            assert await is_reset(stream)
            stream.abort()

    run(scenario())


def test_a_second_signal_does_not_wait(run: Any) -> None:
    async def scenario() -> None:
        async with open_server(drain=60) as server:
            listener = server.tcp("127.0.0.1:0", echo)
            stream = await dialled(listener)
            assert await say(stream, b"x") == b"x"
            running = asyncio.ensure_future(server.run())
            await asyncio.sleep(0)
            os.kill(os.getpid(), signal.SIGTERM)
            await closed(listener)
            os.kill(os.getpid(), signal.SIGINT)
            report = await running
            assert (report.cut, report.forced) == (1, True)
            stream.abort()

    run(scenario())


def test_reject(run: Any) -> None:
    async def scenario() -> None:
        async with open_server() as server:
            politely = await dialled(server.tcp("127.0.0.1:0", Reject(b"no\n")))
            assert await politely.read() == b"no\n"
            assert await politely.read() == b""
            await politely.aclose()
            harshly = await dialled(server.tcp("127.0.0.1:0", Reject(reset=True)))
            assert await is_reset(harshly)
            harshly.abort()

    run(scenario())


def test_without_descriptors_it_pauses_and_goes_on(
    run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with open_server() as server:
            listener = server.tcp("127.0.0.1:0", echo, name="busy")
            stream = await dialled(listener)
            assert await say(stream, b"x") == b"x"
            waiting = socket.socket()
            waiting.setblocking(False)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            highest = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
            taken: list[socket.socket] = []
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
                with pytest.raises(OSError, match="Too many open files"):
                    while True:
                        taken.append(socket.socket())
                assert listener.address is not None
                loop = asyncio.get_running_loop()
                await loop.sock_connect(waiting, (listener.address.host, listener.address.port))
                await until(lambda: "can't accept on busy" in caplog.text)
                assert await say(stream, b"unharmed") == b"unharmed"
            finally:
                for one in taken:
                    one.close()
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            late = TcpStream(waiting)
            assert await say(late, b"late") == b"late"
            late.abort()
            stream.abort()

    with caplog.at_level(logging.WARNING, logger="qanat.server"):
        run(scenario())
