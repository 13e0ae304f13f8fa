"""What proxies elsewhere fell for, as far as no other test has it already.

Here: a server that answers and closes during an upload through a proxy, one byte at a time in every
phase, a reset while the last bytes are written, a handshake that hangs beside others, the end of a
server in each phase, two tasks that write one TLS stream.

Elsewhere: early data (tests/proxy/test_socks5.py, tests/proxy/http/test_http_proxy.py), half-close
(tests/stack/test_relaying.py), a Host that disagrees and a failure after the head
(test_http_proxy.py), IPv6 literals (tests/stack/test_address.py), names that change between check
and dial (tests/stack/connect/test_guard.py), ports that are used up (tests/stack/test_errors.py).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from qanat.proxy import HttpProxy, Socks5Server
from qanat.stack.address import Address
from qanat.stack.codec.proxy_protocol import ProxyHeader, encode_proxy_header
from qanat.stack.connect.target import ConnectTo
from qanat.stack.errors import ConcurrentUse, PhaseTimeout, StackError, StreamBroken
from qanat.stack.layers.proxy_protocol import ProxyProtocolAccept
from qanat.stack.leaves import Forward, echo
from qanat.stack.listening import Listening
from qanat.stack.peek import SniRoute
from qanat.stack.relaying import Relay
from qanat.stack.server import open_server
from qanat.stack.service import Service, stack
from qanat.stack.stream.base import Stream
from qanat.stack.stream.memory import MemoryNetwork, memory_pipe
from qanat.stack.stream.sockets import TcpStream
from qanat.stack.stream.tls import shake_hands
from tests.support.certificates import Authority
from tests.support.wait import wait_until_async

__all__: list[str] = []

PROXY, SITE = Address("proxy.test", 1), Address("site.test", 80)
HEADER = encode_proxy_header(1, ProxyHeader(Address("192.0.2.7", 51000), Address("192.0.2.8", 443)))


async def _dialled(listener: Listening) -> TcpStream:
    assert listener.address is not None
    sock = socket.create_connection((listener.address.host, listener.address.port))
    sock.setblocking(False)
    return TcpStream(sock)


async def _never(_: ConnectTo, /) -> Stream:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("form", ["plain", "connect"])
def test_an_answer_that_comes_during_the_upload(run: Any, form: str) -> None:
    """The server has seen the head, says no, and leaves; the client is still sending."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"

    async def server(stream: Stream, /) -> None:
        seen = b""
        while b"\r\n\r\n" not in seen:
            seen += await stream.read()
        await stream.write(refusal)

    async def work() -> None:
        async with MemoryNetwork() as network:
            network.listen(SITE, server)
            network.listen(PROXY, HttpProxy(connect=network.connector))
            client = network.dial(PROXY)
            place = b"/"
            if form == "connect":
                await client.write(b"CONNECT site.test:80 HTTP/1.1\r\nHost: site.test:80\r\n\r\n")
                while not (await client.peek()).endswith(b"\r\n\r\n"):
                    pass
                assert b" 200 " in await client.read()
            else:
                place = b"http://site.test/"
            await client.write(
                b"POST " + place + b" HTTP/1.1\r\nHost: site.test\r\n"
                b"Content-Length: 10000000\r\n\r\n"
            )

            async def upload() -> None:
                for _ in range(1000):
                    await client.write(bytes(10_000))

            sending = asyncio.ensure_future(upload())
            heard = b""
            try:
                while part := await client.read():
                    heard += part
            except StreamBroken:
                # Behind the answer, since nobody takes the rest of the upload.
                pass
            client.abort()
            await asyncio.wait({sending})
            assert isinstance(sending.exception(), StackError)
        assert b" 413 " in heard
        assert heard.endswith(b"no")

    run(work())


async def _refuse(_: Stream, /) -> None:
    raise AssertionError("nobody gets here")


_PHASES: dict[str, tuple[Service[Stream, Any], bytes]] = {
    "socks greeting": (
        Socks5Server(connect=_never, handshake_timeout=0.05),
        b"\x05\xff" + bytes(255),
    ),
    "socks request": (
        Socks5Server(connect=_never, handshake_timeout=0.05),
        b"\x05\x01\x00\x05\x01\x00\x03\xff" + b"a" * 257,
    ),
    "http head": (
        HttpProxy(connect=_never, head_timeout=0.05),
        b"GET http://site.test/" + b"a" * 1000,
    ),
    "proxy header": (
        stack(ProxyProtocolAccept(timeout=0.05), _refuse),
        encode_proxy_header(2, ProxyHeader(tlvs=((4, bytes(1000)),))),
    ),
    "client hello": (
        SniRoute({"a.example": _refuse}, timeout=0.05),
        b"\x16\x03\x01\x04\x00\x01\x00\x03\xfc\x03\x03" + bytes(1000),
    ),
}


@pytest.mark.parametrize("phase", list(_PHASES))
def test_a_byte_now_and_then_is_no_progress(run: Any, phase: str) -> None:
    """The time is for the phase as a whole, not for each byte of it."""
    service, words = _PHASES[phase]

    async def work() -> None:
        client, stream = memory_pipe()
        serving = asyncio.ensure_future(_served(service, stream))
        sent = 0
        while sent < len(words):
            await client.write(words[sent : sent + 1])
            sent += 1
            done, _ = await asyncio.wait({serving}, timeout=0.004)
            if done:
                break
        client.abort()
        stream.abort()
        assert isinstance(await serving, PhaseTimeout)
        assert sent < len(words)

    run(work())


async def _served(service: Service[Stream, Any], stream: Stream) -> Exception | None:
    try:
        await service(stream)
    except Exception as error:
        return error
    return None


def test_a_reset_while_the_last_bytes_are_written(
    run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of many connections: no mistake of ours, no traceback, and the rest is served."""

    async def talk(stream: Stream, /) -> None:
        while True:
            await stream.write(bytes(65536))

    async def work() -> None:
        async with open_server() as server:
            listener = server.tcp("127.0.0.1:0", talk)
            for _ in range(5):
                assert listener.address is not None
                sock = socket.create_connection((listener.address.host, listener.address.port))
                await wait_until_async(lambda: bool(server.connections))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
                await wait_until_async(lambda: not server.connections)
            server.shutdown()
            report = await server.run()
        assert (report.accepted, report.failed, report.cut) == (5, 0, 0)

    with caplog.at_level(logging.DEBUG, logger="qanat.server"):
        run(work())
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    assert not [record for record in caplog.records if record.exc_info]


def test_a_handshake_that_hangs_delays_nobody(run: Any) -> None:
    async def work() -> None:
        async with open_server(drain=0) as server:
            service = stack(ProxyProtocolAccept(timeout=60), echo)
            listener = server.tcp("127.0.0.1:0", service)
            hanging = [await _dialled(listener) for _ in range(20)]
            for stream in hanging:
                await stream.write(HEADER[:5])
            await wait_until_async(lambda: len(server.connections) == 20)
            quick = await _dialled(listener)
            await quick.write(HEADER + b"hello")
            assert await quick.read_exactly(5) == b"hello"
            for stream in (*hanging, quick):
                stream.abort()

    run(work())


async def _begin_handshake(client: Stream) -> None:
    await client.write(b"\x05\x01")


async def _begin_dial(client: Stream) -> None:
    await client.write(b"CONNECT site.test:80 HTTP/1.1\r\nHost: site.test:80\r\n\r\n")


async def _begin_tunnel(client: Stream) -> None:
    await client.write(b"x")
    assert await client.read() == b"x"


@pytest.mark.parametrize(
    ("phase", "begin"),
    [("handshake", _begin_handshake), ("dial", _begin_dial), ("tunnel", _begin_tunnel)],
)
def test_the_server_ends_in_each_phase(
    run: Any, phase: str, begin: Callable[[Stream], Awaitable[None]]
) -> None:
    """After the drain time everything is cut, both sides of a tunnel included."""

    async def work() -> None:
        async with MemoryNetwork() as network, open_server(drain=0.02) as server:
            network.listen(SITE, echo)
            dialling = asyncio.Event()

            async def connect(_: ConnectTo, /) -> Stream:
                dialling.set()
                return await _never(_)

            services: dict[str, Service[Stream, Any]] = {
                "handshake": Socks5Server(connect=connect),
                "dial": HttpProxy(connect=connect),
                "tunnel": Forward(SITE, network.connector, Relay()),
            }
            client = await _dialled(server.tcp("127.0.0.1:0", services[phase]))
            await begin(client)
            await wait_until_async(lambda: bool(server.connections))
            if phase == "dial":
                await dialling.wait()
            server.shutdown()
            report = await server.run()
            assert (report.accepted, report.cut, report.failed) == (1, 1, 0)
            assert not server.connections
            client.abort()
            await wait_until_async(lambda: not network._tasks)

    run(work())


def test_two_tasks_that_write_one_tls_stream(
    run: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The second one is told so; what the first one wrote arrives as it was."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    authority.issue("server", "DNS:server.test")

    async def work() -> None:
        one, other = memory_pipe(capacity=4096)
        async with asyncio.TaskGroup() as group:
            there = group.create_task(
                shake_hands(one, authority.client(), server_side=False, server_name="server.test")
            )
            here = group.create_task(
                shake_hands(other, authority.server("server"), server_side=True)
            )
        client, server = there.result(), here.result()
        text = b"first" * 50_000
        writing = asyncio.ensure_future(client.write(text))
        await asyncio.sleep(0)
        with pytest.raises(ConcurrentUse, match="writing"):
            await client.write(b"second")
        assert await server.read_exactly(len(text)) == text
        await writing
        client.abort()
        server.abort()

    run(work())
