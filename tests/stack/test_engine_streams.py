"""Connections that the engine accepts and dials, beside those of Python: the same facts, the same
bytes, the same ends."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from qanat.stack import (
    Address,
    ClientHello,
    ConnectError,
    ConnectTo,
    EngineConnector,
    EngineTlsConnect,
    Forward,
    Listener,
    LocalProtocolError,
    Peer,
    Relay,
    StackError,
    Stream,
    TcpConnector,
    Tls,
    TlsServerConfig,
    echo,
    open_server,
    stack,
)
from qanat.stack.courier import courier
from qanat.stack.stream.engine import EngineStream
from tests.stack.connect.test_tcp import closed_port
from tests.support.certificates import Authority
from tests.support.wait import wait_until_async

__all__: list[str] = []


async def talk(stream: Stream, said: bytes) -> bytes:
    await stream.write(said)
    await stream.write_eof()
    heard = b""
    while part := await stream.read():
        heard += part
    await stream.aclose()
    return heard


def files(authority: Authority, name: str, names: str = "") -> tuple[str, str]:
    cert, key = authority.issue(name, names or f"DNS:{name}")
    return str(cert), str(key)


def test_the_engine_accepts_and_dials(run: Any) -> None:
    async def scenario() -> None:
        seen: list[Stream] = []

        async def noted(stream: Stream, /) -> None:
            seen.append(stream)
            await echo(stream)

        async with open_server(drain=5) as server:
            listener = await server.engine("127.0.0.1:0", noted, name="door")
            assert listener.address is not None
            stream = await EngineConnector()(ConnectTo(listener.address))
            assert isinstance(stream, EngineStream)
            assert stream.ext.get(Peer) == Peer(listener.address)
            said = b"x" * 300_000
            assert await talk(stream, said) == said
            (met,) = seen
            assert isinstance(met, EngineStream)
            assert met.ext.get(Listener) == Listener(listener.address, "door")
            peer = met.ext.get(Peer)
            assert peer is not None
            assert peer.address.host == "127.0.0.1"
            await wait_until_async(lambda: not server.connections)
            assert (listener.accepted, listener.open) == (1, 0)

    run(scenario())


def test_tls_of_the_engine_comes_with_its_facts(run: Any, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = files(authority, "door.test")
    other = files(authority, "else.test")
    ours = files(authority, "client.test")
    config = TlsServerConfig(
        cert,
        key,
        alpn=("odd/1",),
        client_ca=str(authority.cert),
        client_optional=True,
        names={"else.test": other},
    )

    async def scenario() -> None:
        facts: list[Tls] = []
        hellos: list[ClientHello] = []

        async def noted(stream: Stream, /) -> None:
            facts.append(stream.ext.require(Tls))
            hellos.append(stream.ext.require(ClientHello))
            await echo(stream)

        async with open_server(drain=5) as server:
            listener = await server.engine("127.0.0.1:0", noted, tls=config, hello=True)
            assert listener.address is not None
            for name in ("door.test", "else.test"):
                context = ssl.create_default_context(cafile=str(authority.cert))
                context.set_alpn_protocols(["odd/1"])
                if name == "else.test":
                    context.load_cert_chain(*ours)
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", listener.address.port, ssl=context, server_hostname=name
                )
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                writer.close()
                await writer.wait_closed()
            first, second = facts
            assert (first.server_name, first.alpn, first.certificate) == (
                "door.test",
                "odd/1",
                None,
            )
            assert second.server_name == "else.test"
            assert "client" in (second.certificate or "")
            assert first.ja4 is not None
            assert first.ja4 == hellos[0].ja4
            assert first.ja4.startswith("t13d")
            assert hellos[0].alpn == ("odd/1",)

    run(scenario())


def test_what_the_engine_accepts_dials_and_relays_never_leaves_it(run: Any, tmp_path: Path) -> None:
    """TLS on both sides, and the flow is in the engine's list."""
    authority = Authority(tmp_path)
    cert, key = files(authority, "door.test", "DNS:door.test,DNS:target.test")
    config = TlsServerConfig(cert, key)

    async def scenario() -> None:
        async with open_server(drain=5) as server:
            target = await server.engine("127.0.0.1:0", echo, tls=config)
            assert target.address is not None
            connect = stack(
                EngineTlsConnect(server_name="target.test", ca=str(authority.cert)),
                EngineConnector(),
            )
            forward = Forward(target.address, connect, Relay())
            door = await server.engine("127.0.0.1:0", forward, tls=config, name="door")
            assert door.address is not None
            near = stack(
                EngineTlsConnect(server_name="door.test", ca=str(authority.cert)), TcpConnector()
            )
            client = await near(ConnectTo(door.address))
            await client.write(b"x")
            assert await client.read() == b"x"
            carrier = await courier()
            (flow,) = [one for one in carrier.group.flows() if one["endpoint"] == "door"]
            assert (flow["tls"], flow["target_tls"]) == ("TLSv1.3", "TLSv1.3")
            assert await talk(client, b"y" * 100_000) == b"y" * 100_000

    run(scenario())


def test_a_handshake_that_fails_is_no_connection(
    run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = files(Authority(tmp_path), "door.test")
    caplog.set_level(logging.INFO, "qanat.stack")

    async def scenario() -> None:
        async with open_server(drain=5) as server:
            listener = await server.engine(
                "127.0.0.1:0", echo, tls=TlsServerConfig(cert, key), handshake_timeout=0.2
            )
            assert listener.address is not None
            # One that says something else, and one that says nothing: neither keeps the third.
            for said in (b"GET / HTTP/1.1\r\n\r\n", b""):
                stream = await TcpConnector()(ConnectTo(listener.address))
                if said:
                    await stream.write(said)
                with pytest.raises(StackError):
                    while await stream.read():
                        pass
                    raise StackError("it ended in order")
                stream.abort()
            assert listener.accepted == 0
            # It is told, by a thread of the engine's.
            await wait_until_async(lambda: "plain HTTP" in caplog.text)

    run(scenario())


def test_limits_of_the_server_hold(run: Any) -> None:
    async def scenario() -> None:
        async with open_server(drain=0.1, max_conns=1) as server:
            listener = await server.engine("127.0.0.1:0", echo)
            assert listener.address is not None
            first = await TcpConnector()(ConnectTo(listener.address))
            await first.write(b"x")
            assert await first.read() == b"x"
            second = await TcpConnector()(ConnectTo(listener.address))
            with pytest.raises(StackError):
                await second.read()
            assert (listener.accepted, listener.refused) == (2, 1)
            for stream in (first, second):
                stream.abort()

    run(scenario())


def test_certificates_that_can_not_be_used_are_told(run: Any, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("nothing")

    async def scenario() -> None:
        async with open_server() as server:
            with pytest.raises(LocalProtocolError, match=r"junk\.pem"):
                await server.engine("127.0.0.1:0", echo, tls=TlsServerConfig(str(junk), str(junk)))
            with pytest.raises(LocalProtocolError, match="hello=True"):
                await server.engine("127.0.0.1:0", echo, hello=True)
            assert not server.listeners
            with socket.create_server(("127.0.0.1", 0)) as taken:
                port = taken.getsockname()[1]
                busy = f"127.0.0.1:{port}: Address already in use"
                with pytest.raises(OSError, match=busy):
                    server.tcp(f"127.0.0.1:{port}", echo)
                with pytest.raises(OSError, match=busy):
                    await server.engine(f"127.0.0.1:{port}", echo)

    run(scenario())


def test_why_the_engine_did_not_connect(run: Any) -> None:
    async def scenario() -> None:
        connect = EngineConnector(timeout=0.3)
        nobody = Address("127.0.0.1", closed_port())
        with pytest.raises(ConnectError) as refused:
            await connect(ConnectTo(nobody))
        assert (refused.value.kind, refused.value.domain) == ("refused", "transport")
        assert str(nobody) in str(refused.value)
        with pytest.raises(ConnectError) as unknown:
            await connect(ConnectTo(Address("name.test", 1)))
        assert (unknown.value.kind, unknown.value.domain) == ("dns", "local")
        with pytest.raises(ConnectError) as nothing:
            await connect(ConnectTo(Address("name.test", 1), candidates=()))
        assert nothing.value.kind == "dns"
        with socket.socket() as deaf:
            # Its queue is full after one.
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            to = Address("127.0.0.1", deaf.getsockname()[1])
            dialled = await asyncio.gather(
                *[connect(ConnectTo(to)) for _ in range(4)], return_exceptions=True
            )
            late = [one for one in dialled if isinstance(one, ConnectError)]
            assert late
            assert {one.kind for one in late} == {"timeout"}
            for one in dialled:
                if isinstance(one, Stream):
                    one.abort()
        with pytest.raises(ConnectError) as through:
            await EngineConnector(through="192.0.2.77")(ConnectTo(nobody))
        assert through.value.domain == "local"

    run(scenario())


def test_candidates_are_raced_and_cancelling_leaves_nothing(run: Any) -> None:
    async def scenario() -> None:
        async with open_server(drain=0.1) as server:
            listener = server.tcp("127.0.0.1:0", echo)
            assert listener.address is not None
            dead = Address("127.0.0.1", closed_port())
            stream = await EngineConnector()(
                ConnectTo(Address("name.test", 1), candidates=(dead, listener.address))
            )
            assert stream.ext.get(Peer) == Peer(listener.address)
            assert await talk(stream, b"x") == b"x"
            carrier = await courier()
            for turns in range(4):
                dialling = asyncio.ensure_future(EngineConnector()(ConnectTo(listener.address)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                dialling.cancel()
                for ended in await asyncio.gather(dialling, return_exceptions=True):
                    if isinstance(ended, Stream):
                        ended.abort()
            await wait_until_async(lambda: not server.connections)
            await wait_until_async(lambda: not carrier._watching)

    run(scenario())
