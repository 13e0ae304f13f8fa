"""The small HTTP server: what it answers, and what a peer can't make it do."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qanat.observe.http import (
    Bounds,
    Handler,
    Request,
    Response,
    Server,
    json_response,
    text_response,
)
from tests.support.wait import wait_until_async


async def echo(request: Request) -> Response:
    return json_response(
        {
            "method": request.method,
            "path": request.path,
            "query": dict(request.query),
            "body": request.body.decode(),
            "client": request.client,
            "agent": request.headers.get("user-agent"),
        }
    )


def serving(
    test: Callable[[Server, tuple[str, int]], Coroutine[Any, Any, None]],
    handler: Handler = echo,
    bounds: Bounds | None = None,
) -> None:
    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        server = Server(handler, bounds=bounds)
        await server.serve(listener)
        try:
            await test(server, listener.getsockname())
        finally:
            await server.close()
        assert server.open_connections == 0

    asyncio.run(main())


async def exchange(address: tuple[str, int], sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


def ask(address: tuple[str, int], method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*address, timeout=5)
    try:
        connection.request(method, path, body or None, {"User-Agent": "test"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_request_reaches_the_handler_whole() -> None:
    async def test(_: Server, address: tuple[str, int]) -> None:
        status, body = await asyncio.to_thread(ask, address, "POST", "/a%20b?x=1&y=", b"hello")
        told = json.loads(body)
        assert status == 200
        assert told.pop("client").startswith("127.0.0.1:")
        assert told == {
            "method": "POST",
            "path": "/a b",
            "query": {"x": "1", "y": ""},
            "body": "hello",
            "agent": "test",
        }

    serving(test)


def test_a_connection_serves_many_requests_even_when_they_come_at_once() -> None:
    async def test(_: Server, address: tuple[str, int]) -> None:
        one = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await exchange(address, one % 1 + one % 2 + last)
        assert [f'"path": "/{n}"'.encode() in answer for n in (1, 2, 3)] == [True] * 3

    serving(test)


def test_a_head_request_gets_no_body() -> None:
    async def test(_: Server, address: tuple[str, int]) -> None:
        answer = await exchange(address, b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"\r\n\r\n")

    serving(test)


def test_a_request_may_arrive_byte_by_byte() -> None:
    async def test(_: Server, address: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()
        assert head.startswith(b"HTTP/1.1 200")

    serving(test)


def test_a_stream_is_sent_as_it_is_made_and_closed_when_the_reader_goes() -> None:
    closed = asyncio.Event()

    async def endless(_: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"tick\n"
                    await asyncio.sleep(0.01)
            finally:
                closed.set()

        return Response(body=pieces())

    async def test(_: Server, address: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"tick\n"), 5)
        await asyncio.wait_for(reader.readuntil(b"tick\n"), 5)
        writer.close()
        await asyncio.wait_for(closed.wait(), 5)

    serving(test, endless)


def test_a_failing_handler_is_answered_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_: Request) -> Response:
        raise RuntimeError("secret of the house")

    async def test(_: Server, address: tuple[str, int]) -> None:
        status, body = await asyncio.to_thread(ask, address, "GET", "/")
        assert status == 500
        assert b"secret" not in body

    serving(test, broken)
    assert "secret of the house" in caplog.text


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + b"z" * 90_000, 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ],
    ids=["tls", "no host", "long head", "long body", "two lengths", "bad target"],
)
def test_nonsense_is_refused_and_the_connection_closed(sent: bytes, status: int) -> None:
    async def test(_: Server, address: tuple[str, int]) -> None:
        answer = await exchange(address, sent)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer

    serving(test)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n"])
def test_a_slow_head_does_not_hold_a_connection(sent: bytes) -> None:
    async def test(server: Server, address: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(sent)
        answer = await asyncio.wait_for(reader.read(), 5)
        assert (b" 408 " in answer) == bool(sent)
        writer.close()
        await wait_until_async(lambda: server.open_connections == 0)

    serving(test, bounds=Bounds(head_time=0.1))


def test_trickling_bytes_do_not_extend_the_time_for_a_head() -> None:
    async def test(server: Server, address: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\n")
        answering = asyncio.ensure_future(reader.read())
        for _ in range(200):
            if answering.done():
                break
            writer.write(b"X: y\r\n")
            await asyncio.sleep(0.02)
        assert b" 408 " in await asyncio.wait_for(answering, 5)
        writer.close()

    serving(test, bounds=Bounds(head_time=0.3))


def test_more_connections_than_allowed_are_told_so() -> None:
    async def test(server: Server, address: tuple[str, int]) -> None:
        held = [await asyncio.open_connection(*address) for _ in range(2)]
        await wait_until_async(lambda: server.open_connections == 2)
        answer = await exchange(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503")
        for _, writer in held:
            writer.close()
        await wait_until_async(lambda: server.open_connections == 0)
        status, _ = await asyncio.to_thread(ask, address, "GET", "/")
        assert status == 200

    serving(test, bounds=Bounds(connections=2))


def test_a_reader_that_stops_reading_is_dropped() -> None:
    async def large(_: Request) -> Response:
        return text_response("x" * 50_000_000)

    async def test(server: Server, address: tuple[str, int]) -> None:
        _, writer = await asyncio.open_connection(*address, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await wait_until_async(lambda: server.open_connections == 1)
        await wait_until_async(lambda: server.open_connections == 0)
        writer.transport.abort()

    serving(test, large, Bounds(write_time=0.1))


PIECES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /a?b=c%zz&d HTTP/1.1\r\n",
        b"HEAD * HTTP/1.0\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"OPTIONS http://[::1 HTTP/1.1\r\n",
        b"Host: x\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"Upgrade: h2c\r\nConnection: upgrade\r\n",
        b"\r\n",
        b"abc",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
)


@settings(max_examples=150)
@given(parts=st.lists(st.one_of(PIECES, st.binary(max_size=40)), max_size=12))
def test_no_bytes_whatever_upset_it(parts: list[bytes]) -> None:
    problems: list[Any] = []

    async def test(server: Server, address: tuple[str, int]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: problems.append(told))
        reader, writer = await asyncio.open_connection(*address)
        for part in parts:
            writer.write(part)
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await wait_until_async(lambda: server.open_connections == 0)

    with collected_errors() as errors:
        serving(test)
    assert (problems, errors) == ([], [])


@contextlib.contextmanager
def collected_errors() -> Iterator[list[logging.LogRecord]]:
    found: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    collector = Collector(logging.WARNING)
    logging.getLogger().addHandler(collector)
    try:
        yield found
    finally:
        logging.getLogger().removeHandler(collector)


def test_a_unix_socket_serves_too(tmp_path: Path) -> None:
    path = tmp_path / "socket"

    async def main() -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        server = Server(echo)
        await server.serve(listener)
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["client"] is None
        await server.close()

    asyncio.run(main())


def test_closing_cuts_what_is_still_being_answered() -> None:
    started = asyncio.Event()

    async def stuck(_: Request) -> Response:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def test(server: Server, address: tuple[str, int]) -> None:
        _, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(started.wait(), 5)
        await asyncio.wait_for(server.close(), 5)
        writer.close()

    serving(test, stuck)
