"""The layers of TLS: both engines, names, certificates both ways, and mistakes in files."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from qanat.stack import (
    Address,
    ConnectError,
    ConnectTo,
    Forward,
    LocalProtocolError,
    MemoryNetwork,
    PhaseTimeout,
    Stream,
    TcpConnector,
    Tls,
    TlsAccept,
    TlsClientConfig,
    TlsConnect,
    TlsError,
    TlsServerConfig,
    echo,
    open_server,
    stack,
)
from tests.support.certificates import Authority

__all__: list[str] = []

HERE = Address("server.test", 443)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.issue("server", "DNS:server.test,IP:127.0.0.1")
    made.issue("other", "DNS:other.test,DNS:www.below.test")
    made.issue("alice", "DNS:alice.test")
    return made


def files(authority: Authority, name: str) -> tuple[str, str]:
    return str(authority.folder / f"{name}.crt"), str(authority.folder / f"{name}.key")


def server(authority: Authority, **more: Any) -> TlsServerConfig:
    return TlsServerConfig(*files(authority, "server"), **more)


def client(authority: Authority, **more: Any) -> TlsClientConfig:
    return TlsClientConfig(ca=str(authority.cert), **more)


async def say(stream: Stream, words: bytes) -> bytes:
    await stream.write(words)
    await stream.write_eof()
    heard = b""
    while part := await stream.read():
        heard += part
    await stream.aclose()
    return heard


def keeping(facts: list[Tls]) -> Callable[[Stream], Any]:
    async def serve(stream: Stream, /) -> None:
        facts.append(stream.ext.require(Tls))
        await echo(stream)

    return serve


@pytest.mark.parametrize("chunk", [1, 65536])
def test_agreement_is_told_on_both_sides(run: Any, authority: Authority, chunk: int) -> None:
    async def scenario() -> None:
        facts: list[Tls] = []
        config = server(authority, alpn=("h2", "http/1.1"))
        async with MemoryNetwork(chunk=chunk) as network:
            network.listen(HERE, stack(TlsAccept(config), keeping(facts)))
            connector = stack(TlsConnect(client(authority, alpn=("http/1.1",))), network.connector)
            stream = await connector(ConnectTo(HERE))
            ours = stream.ext.require(Tls)
            assert await say(stream, b"words") == b"words"
        (theirs,) = facts
        for fact in (ours, theirs):
            assert fact.version == "TLSv1.3"
            assert fact.alpn == "http/1.1"
            assert fact.server_name == "server.test"
            assert fact.cipher.startswith("TLS_")
        assert ours.certificate == "O=tests,CN=server"
        assert theirs.certificate is None
        assert network.errors == []

    run(scenario())


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("server.test", "server"),
        ("other.test", "other"),
        ("OTHER.test", "other"),
        ("www.below.test", "other"),
    ],
)
def test_a_certificate_for_each_name(
    run: Any, authority: Authority, asked: str, shown: str
) -> None:
    async def scenario() -> None:
        other = files(authority, "other")
        config = server(authority, names={"other.test": other, "*.below.test": other})
        async with MemoryNetwork() as network:
            network.listen(HERE, stack(TlsAccept(config), echo))
            layer = TlsConnect(client(authority), server_name=asked)
            stream = await stack(layer, network.connector)(ConnectTo(HERE))
            assert stream.ext.require(Tls).certificate == f"O=tests,CN={shown}"
            assert await say(stream, b"words") == b"words"

    run(scenario())


@pytest.mark.parametrize("optional", [False, True])
def test_clients_with_certificates(run: Any, authority: Authority, optional: bool) -> None:
    async def scenario() -> None:
        facts: list[Tls] = []
        config = server(authority, client_ca=str(authority.cert), client_optional=optional)
        cert, key = files(authority, "alice")
        async with MemoryNetwork() as network:
            network.listen(HERE, stack(TlsAccept(config), keeping(facts)))
            known = TlsConnect(client(authority, certificate=cert, key=key))
            stream = await stack(known, network.connector)(ConnectTo(HERE))
            assert await say(stream, b"words") == b"words"
            assert facts[0].certificate == "O=tests,CN=alice"
            stranger = stack(TlsConnect(client(authority)), network.connector)
            stream = await stranger(ConnectTo(HERE))
            if optional:
                assert await say(stream, b"words") == b"words"
                assert facts[1].certificate is None
            else:
                # With TLS 1.3 a client learns of it at its first read.
                with pytest.raises(TlsError, match="certificate required"):
                    await stream.read()
            stream.abort()

    run(scenario())


@pytest.mark.parametrize("engine", ["auto", "never"])
@pytest.mark.parametrize("ours", ["auto", "never"])
def test_by_the_engine_and_by_python_over_sockets(
    run: Any,
    authority: Authority,
    engine: Literal["auto", "never"],
    ours: Literal["auto", "never"],
) -> None:
    async def scenario() -> None:
        facts: list[Tls] = []
        async with open_server() as listening:
            accept = TlsAccept(server(authority), engine=engine)
            there = listening.tcp("127.0.0.1:0", stack(accept, keeping(facts)))
            secure = stack(TlsConnect(client(authority), engine=ours), TcpConnector())
            assert there.address is not None
            middle = listening.tcp("127.0.0.1:0", Forward(there.address, secure))
            assert middle.address is not None
            plain = TcpConnector()
            stream = await plain(ConnectTo(middle.address))
            await stream.write(b"x" * 100_000)
            await stream.write_eof()
            assert await stream.read_exactly(100_000) == b"x" * 100_000
            assert await stream.read() == b""
            await stream.aclose()
        assert [fact.version for fact in facts] == ["TLSv1.3"]

    run(scenario())


def test_whatever_goes_wrong_is_an_error_of_connecting(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        async with MemoryNetwork() as network:
            network.listen(HERE, stack(TlsAccept(server(authority)), echo))
            network.listen(Address("mute.test", 1), _mute)
            network.listen(Address("short.test", 1), _short)
            strict = stack(TlsConnect(handshake_timeout=0.05), network.connector)
            for host, port, kind in [
                ("server.test", 443, "tls"),
                ("mute.test", 1, "timeout"),
                ("short.test", 1, "tls"),
                ("nobody.test", 1, "refused"),
            ]:
                with pytest.raises(ConnectError) as error:
                    await strict(ConnectTo(Address(host, port)))
                assert error.value.kind == kind
                assert host in str(error.value)
            loose = stack(TlsConnect(TlsClientConfig(insecure=True)), network.connector)
            stream = await loose(ConnectTo(HERE))
            assert await say(stream, b"words") == b"words"

    run(scenario())


async def _mute(stream: Stream) -> None:
    while await stream.read():
        pass


async def _short(stream: Stream) -> None:
    await stream.read(1)


def test_a_client_that_does_not_shake_hands(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        async with MemoryNetwork() as network:
            accept = TlsAccept(server(authority), handshake_timeout=0.05)
            network.listen(HERE, stack(accept, echo))
            stream = await network.connector(ConnectTo(HERE))
            assert await stream.read() == b""
            await stream.aclose()
        (error,) = network.errors
        assert isinstance(error, PhaseTimeout)
        assert error.phase == "tls-handshake"

    run(scenario())


def test_files_that_can_not_be_used(authority: Authority, tmp_path: Path) -> None:
    cert, key = files(authority, "server")
    _, other_key = files(authority, "other")
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    missing = str(tmp_path / "missing.pem")
    cases: list[tuple[TlsServerConfig | TlsClientConfig, str]] = [
        (TlsServerConfig(missing, key), f"{missing}: No such file"),
        (TlsServerConfig(cert, missing), f"{missing}: No such file"),
        (TlsServerConfig(cert, other_key), f"{cert}: the key in {other_key} is not that of"),
        (TlsServerConfig(str(junk), key), f"{junk}: no PEM certificate"),
        (TlsServerConfig(cert, key, client_ca=str(junk)), f"{junk}: no PEM certificates"),
        (TlsServerConfig(cert, key, names={"x.test": (missing, key)}), f"{missing}: No such"),
        (TlsClientConfig(ca=missing), f"{missing}: No such file"),
    ]
    for config, words in cases:
        with pytest.raises(LocalProtocolError) as error:
            config.context()
        assert str(error.value).startswith(words)
    with pytest.raises(LocalProtocolError, match="go together"):
        TlsClientConfig(certificate=cert)
    # A layer says so when the stack is made, not at the first connection.
    with pytest.raises(LocalProtocolError):
        stack(TlsAccept(TlsServerConfig(missing, key)), echo)


def test_old_versions_are_refused(authority: Authority) -> None:
    for context in (server(authority).context(), client(authority).context()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert client(authority).context().verify_mode == ssl.CERT_REQUIRED
    loose = replace(client(authority), insecure=True).context()
    assert loose.verify_mode == ssl.CERT_NONE


def test_protocols_are_not_letters() -> None:
    text: Any = "h2"
    for config in (lambda: TlsClientConfig(alpn=text), lambda: TlsServerConfig("c", "k", text)):
        with pytest.raises(LocalProtocolError, match=r'write \("h2",\)'):
            config()
