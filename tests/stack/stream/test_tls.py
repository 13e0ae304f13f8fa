"""TLS over any stream: nothing is lost, half-close works, and mistakes have a meaning."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from typing import Any

import pytest

from qanat.stack.errors import LocalProtocolError, StreamBroken, TlsError
from qanat.stack.stream.base import Stream
from qanat.stack.stream.memory import memory_pipe
from qanat.stack.stream.sockets import TcpStream
from qanat.stack.stream.tls import TlsStream, shake_hands
from tests.stack.pairs import tcp_sockets
from tests.support.certificates import Authority

__all__: list[str] = []

CHUNKS = [1, 7, 65536]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.issue("server", "DNS:server.test")
    return made


async def secured(
    authority: Authority, one: Stream, other: Stream, **versions: ssl.TLSVersion
) -> tuple[TlsStream, TlsStream]:
    client, server = authority.client(), authority.server("server")
    for name, version in versions.items():
        setattr(client, name, version)
    async with asyncio.TaskGroup() as group:
        there = group.create_task(
            shake_hands(one, client, server_side=False, server_name="server.test")
        )
        here = group.create_task(shake_hands(other, server, server_side=True))
    return there.result(), here.result()


async def everything(stream: Stream) -> bytes:
    parts = []
    while part := await stream.read(1000):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bytes_pass_both_ways_at_once(
    run: Any, authority: Authority, chunk: int, version: ssl.TLSVersion
) -> None:
    size = 3000 if chunk == 1 else 300_000

    async def scenario() -> None:
        one, other = memory_pipe(chunk=chunk)
        client, server = await secured(authority, one, other, maximum_version=version)
        up, down = bytes(range(250)) * (size // 250), b"down" * (size // 4)

        async def say(stream: Stream, data: bytes) -> None:
            await stream.write(data)
            await stream.write_eof()

        async with asyncio.TaskGroup() as group:
            group.create_task(say(client, up))
            group.create_task(say(server, down))
            heard_up = group.create_task(everything(server))
            heard_down = group.create_task(everything(client))
        assert heard_up.result() == up
        assert heard_down.result() == down
        assert not client.truncated
        assert await client.read() == b""
        await client.aclose()
        await server.aclose()

    run(scenario())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_end_of_one_direction_leaves_the_other(
    run: Any, authority: Authority, version: ssl.TLSVersion
) -> None:
    async def scenario() -> None:
        client, server = await secured(authority, *memory_pipe(), maximum_version=version)
        await server.write(b"before the client's end, ")
        await client.write(b"question")
        # Part of the answer is here already when the client ends.
        assert await client.read(6) == b"before"
        await client.write_eof()
        assert await everything(server) == b"question"
        await server.write(b"and behind it")
        await server.write_eof()
        assert await everything(client) == b" the client's end, and behind it"
        with pytest.raises(LocalProtocolError, match="after the end"):
            await client.write(b"more")
        await client.aclose()
        await server.aclose()

    run(scenario())


@pytest.mark.parametrize("chunk", CHUNKS)
def test_tls_within_tls(run: Any, authority: Authority, chunk: int) -> None:
    async def scenario() -> None:
        outer = await secured(authority, *memory_pipe(chunk=chunk))
        client, server = await secured(authority, *outer)
        assert client.below is outer[0]
        await client.write(b"x" * 2000)
        await client.write_eof()
        assert await everything(server) == b"x" * 2000
        await server.write(b"still open")
        await server.aclose()
        assert await everything(client) == b"still open"
        await client.aclose()

    run(scenario())


def test_what_was_read_before_belongs_to_the_handshake(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = memory_pipe()

        async def serve() -> bytes:
            # A header and the hello in one read, as behind a load balancer.
            first = await other.read()
            assert first.startswith(b"header")
            other.unread(first[6:])
            stream = await shake_hands(other, authority.server("server"), server_side=True)
            return await stream.read()

        async with asyncio.TaskGroup() as group:
            served = group.create_task(serve())
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            session = authority.client().wrap_bio(incoming, outgoing, server_hostname="server.test")
            with pytest.raises(ssl.SSLWantReadError):
                session.do_handshake()
            await one.write(b"header" + outgoing.read())
            incoming.write(await one.read())
            session.do_handshake()
            # The end of the handshake and the first words in one piece.
            session.write(b"early words")
            await one.write(outgoing.read())
        assert served.result() == b"early words"
        one.abort()
        other.abort()

    run(scenario())


def test_an_end_without_a_word_is_an_end_that_tells(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = memory_pipe()
        client, server = await secured(authority, one, other)
        await client.write(b"all of it?")
        await one.write_eof()
        assert await everything(server) == b"all of it?"
        assert server.truncated
        assert await server.read() == b""
        client.abort()
        server.abort()

    run(scenario())


def test_a_reset_below_is_a_reset(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        client, server = await secured(authority, *memory_pipe())
        client.abort()
        with pytest.raises(StreamBroken):
            await server.read()
        with pytest.raises(StreamBroken):
            await server.write(b"x")
        await server.aclose()
        await server.aclose()

    run(scenario())


def test_a_handshake_that_ends_early(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = memory_pipe()
        await one.write_eof()
        with pytest.raises(StreamBroken, match="within the TLS handshake"):
            await shake_hands(other, authority.server("server"), server_side=True)
        one.abort()
        other.abort()

    run(scenario())


def test_a_server_that_is_not_trusted_learns_it(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = memory_pipe()
        strangers = ssl.create_default_context()

        async def serve() -> TlsError:
            with pytest.raises(TlsError) as error:
                await shake_hands(other, authority.server("server"), server_side=True)
            return error.value

        async with asyncio.TaskGroup() as group:
            served = group.create_task(serve())
            with pytest.raises(TlsError, match=r"not trusted: .*issuer certificate"):
                await shake_hands(one, strangers, server_side=False, server_name="server.test")
        assert served.result().alert == "unknown ca"
        one.abort()
        other.abort()

    run(scenario())


def test_a_name_that_the_certificate_is_not_for(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = memory_pipe()
        task = asyncio.ensure_future(
            shake_hands(other, authority.server("server"), server_side=True)
        )
        with pytest.raises(TlsError, match=r"not trusted: .*other\.test"):
            await shake_hands(one, authority.client(), server_side=False, server_name="other.test")
        one.abort()
        stream = await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 5)
        assert isinstance(stream[0], TlsStream | StreamBroken | TlsError)
        other.abort()

    run(scenario())


@pytest.mark.parametrize("name", ["a..test", ".test", "x" * 64 + ".test", "xn--\u00fc.test"])
def test_names_that_no_server_can_have(run: Any, authority: Authority, name: str) -> None:
    async def scenario() -> None:
        ours, theirs = memory_pipe()
        with pytest.raises(TlsError, match="can't be the name of a server"):
            await shake_hands(ours, authority.client(), server_side=False, server_name=name)
        ours.abort()
        theirs.abort()

    run(scenario())


def test_who_speaks_http_is_told_in_http(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = memory_pipe()
        await one.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TlsError, match="plain HTTP"):
            await shake_hands(other, authority.server("server"), server_side=True)
        await other.aclose()
        head, _, body = (await everything(one)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"Content-Length: %d" % len(body) in head
        assert b"https://" in body
        one.abort()

    run(scenario())


def test_garbage_breaks_the_stream_for_good(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = memory_pipe()
        client, server = await secured(authority, one, other)
        await one.write(b"this is no record at all")
        with pytest.raises(TlsError):
            await server.read()
        with pytest.raises(TlsError):
            await server.write(b"x")
        await server.aclose()
        client.abort()

    run(scenario())


def test_reading_can_be_cancelled_and_nothing_is_lost(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        client, server = await secured(authority, *memory_pipe(chunk=3))
        for number in range(20):
            reading = asyncio.ensure_future(server.read())
            for _ in range(number % 5):
                await asyncio.sleep(0)
            if not reading.done():
                reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await client.write(b"whole")
        assert await server.read_exactly(5) == b"whole"
        client.abort()
        server.abort()

    run(scenario())


def test_a_cancelled_write_is_not_taken_for_a_whole_one(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        client, server = await secured(authority, *memory_pipe(capacity=4096))
        writing = asyncio.ensure_future(client.write(bytes(100_000)))
        await asyncio.wait([writing], timeout=0.05)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        with pytest.raises(StreamBroken, match="cancelled"):
            await client.write(b"x")
        client.abort()
        server.abort()

    run(scenario())


def test_closing_does_not_wait_for_who_does_not_read(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        client, server = await secured(authority, *memory_pipe(capacity=4096))
        writing = asyncio.ensure_future(client.write(bytes(100_000)))
        await asyncio.wait([writing], timeout=0.05)
        await asyncio.wait_for(client.aclose(), 5)
        with pytest.raises((StreamBroken, LocalProtocolError)):
            await writing
        server.abort()

    run(scenario())


def test_a_buffer_may_be_used_again(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        client, server = await secured(authority, *memory_pipe(capacity=4096))
        buffer = bytearray(b"a" * 5000)

        async def say() -> None:
            await client.write(memoryview(buffer))
            buffer[:] = b"b" * 5000
            await client.write(buffer)
            await client.write_eof()

        async with asyncio.TaskGroup() as group:
            group.create_task(say())
            heard = group.create_task(everything(server))
        assert heard.result() == b"a" * 5000 + b"b" * 5000
        client.abort()
        server.abort()

    run(scenario())


def test_with_pythons_own_sockets(run: Any, authority: Authority) -> None:
    """The other end is the standard library's blocking TLS, in a thread."""

    def converse(sock: socket.socket) -> bytes:
        with authority.client().wrap_socket(sock, server_hostname="server.test") as tls:
            tls.sendall(b"q" * 100_000)
            heard = b""
            while len(heard) < 100_000:
                heard += tls.recv(65536)
            return heard

    async def scenario() -> None:
        ours, theirs = tcp_sockets()
        theirs.setblocking(True)
        thread = asyncio.get_running_loop().run_in_executor(None, converse, theirs)
        stream = await shake_hands(TcpStream(ours), authority.server("server"), server_side=True)
        got = await stream.read_exactly(100_000)
        await stream.write(got)
        assert await thread == b"q" * 100_000
        assert await stream.read() == b""
        await stream.aclose()

    run(scenario())


def test_with_the_client_of_openssl(run: Any, authority: Authority) -> None:
    """It is told everything before its connection ends, and checks our certificate."""

    def converse(port: int) -> bytes:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-quiet"]
        checks = ("-CAfile", authority.cert, "-verify_return_error", "-verify_hostname")
        return subprocess.run(
            [*command, *checks, "server.test"],
            input=b"q" * 100_000,
            capture_output=True,
            check=True,
            timeout=15,
        ).stdout

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            talking = loop.run_in_executor(None, converse, listener.getsockname()[1])
            accepted, _ = await loop.sock_accept(listener)
        stream = await shake_hands(
            TcpStream(accepted), authority.server("server"), server_side=True
        )
        await stream.write(await stream.read_exactly(100_000))
        await stream.aclose()
        assert await talking == b"q" * 100_000

    run(scenario())
