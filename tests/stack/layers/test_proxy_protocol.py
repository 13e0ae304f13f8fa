"""PROXY headers taken off and put in front, and who is believed."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from qanat.stack import (
    Address,
    Client,
    ConnectError,
    ConnectTo,
    LocalProtocolError,
    MemoryNetwork,
    Peer,
    PhaseTimeout,
    ProxyHeader,
    ProxyProtocolAccept,
    ProxyProtocolSend,
    RemoteProtocolError,
    Stream,
    memory_pipe,
    stack,
)
from qanat.stack.codec.proxy_protocol import encode_proxy_header
from qanat.stack.facts import Listener
from tests.support.wait import wait_until_async

__all__: list[str] = []

HEADER = ProxyHeader(Address("192.0.2.7", 51000), Address("198.51.100.1", 443), ((4, b"x"),))
LINE = encode_proxy_header(1, HEADER)
BINARY = encode_proxy_header(2, HEADER, checksum=True)


async def tell(stream: Stream, /) -> tuple[str | None, bytes]:
    client = stream.ext.get(Client)
    heard = b""
    while part := await stream.read():
        heard += part
    return str(client.address) if client else None, heard


async def accepted(
    layer: ProxyProtocolAccept,
    words: bytes,
    *,
    chunk: int = 65536,
    end: bool = True,
    peer: str = "10.0.0.9",
) -> tuple[str | None, bytes]:
    client, stream = memory_pipe(capacity=1 << 20, chunk=chunk)
    stream.ext.insert(Peer(Address(peer, 1)))
    try:
        await client.write(words)
        if end:
            await client.write_eof()
        return await stack(layer, tell)(stream)
    finally:
        client.abort()
        stream.abort()


@pytest.mark.parametrize("chunk", [1, 7, 65536])
@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("header", [LINE, BINARY])
def test_the_header_is_taken_off(run: Any, header: bytes, optional: bool, chunk: int) -> None:
    layer = ProxyProtocolAccept(optional=optional)
    heard = run(accepted(layer, header + b"behind it", chunk=chunk))
    assert heard == ("192.0.2.7:51000", b"behind it")


def test_the_longest_header(run: Any) -> None:
    long = encode_proxy_header(2, ProxyHeader(tlvs=((4, bytes(65_532)),)))
    assert run(accepted(ProxyProtocolAccept(), long + b"x", chunk=5000)) == (None, b"x")


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\r\n\r\n", b"PRO", b""])
def test_without_one(run: Any, words: bytes) -> None:
    assert run(accepted(ProxyProtocolAccept(optional=True), words)) == (None, words)
    with pytest.raises(RemoteProtocolError):
        run(accepted(ProxyProtocolAccept(), words))


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("words", [LINE[:20], BINARY[:20], b"PROXY nonsense\r\n"])
def test_one_that_was_begun_must_be_right(run: Any, words: bytes, optional: bool) -> None:
    with pytest.raises(RemoteProtocolError):
        run(accepted(ProxyProtocolAccept(optional=optional), words))


def test_time_is_limited(run: Any) -> None:
    for words in (b"", LINE[:20]):
        with pytest.raises(PhaseTimeout, match="proxy-header"):
            run(accepted(ProxyProtocolAccept(timeout=0.02), words, end=False))
    with pytest.raises(PhaseTimeout):
        layer = ProxyProtocolAccept(optional=True, timeout=0.02)
        run(accepted(layer, LINE[:20], end=False))

    async def silent() -> bool:
        client, stream = memory_pipe()

        async def greet(stream: Stream, /) -> bool:
            return True

        try:
            return await stack(ProxyProtocolAccept(optional=True, timeout=0.02), greet)(stream)
        finally:
            client.abort()
            stream.abort()

    assert run(silent())


def test_only_the_trusted_are_believed(run: Any) -> None:
    words = LINE + b"x"
    trusted = ProxyProtocolAccept(trusted=["10.0.0.0/8"])
    # As a listener of both families sees it, too.
    for peer in ("10.0.0.9", "::ffff:10.0.0.9"):
        assert run(accepted(trusted, words, peer=peer)) == ("192.0.2.7:51000", b"x")
    strange = ("172.16.0.0/12", "2001:db8::/32")
    with pytest.raises(RemoteProtocolError, match=r"10\.0\.0\.9 is not trusted"):
        run(accepted(ProxyProtocolAccept(trusted=strange), words))
    # What it says is then its own.
    assert run(accepted(ProxyProtocolAccept(trusted=strange, optional=True), words)) == (
        None,
        words,
    )
    with pytest.raises(LocalProtocolError, match=r"trusted: .*nonsense"):
        stack(ProxyProtocolAccept(trusted=["nonsense"]), tell)


@pytest.mark.parametrize("version", [1, 2])
def test_the_target_is_told(run: Any, version: Literal[1, 2]) -> None:
    async def scenario() -> None:
        heard: list[tuple[str | None, bytes]] = []

        async def serve(stream: Stream, /) -> None:
            heard.append(await tell(stream))

        target = Address("target.test", 1)
        async with MemoryNetwork() as network:
            network.listen(target, stack(ProxyProtocolAccept(), serve))
            layer = ProxyProtocolSend(version, checksum=True)
            connector = stack(layer, network.connector)
            asked = ConnectTo(target)
            asked.ext.insert(Peer(Address("192.0.2.1", 5)))
            asked.ext.insert(Listener(Address("192.0.2.2", 80)))
            stream = await connector(asked)
            await stream.write(b"x")
            await stream.aclose()
            # Whom a header told us of comes before the peer.
            asked.ext.insert(HEADER)
            stream = await connector(asked)
            await stream.aclose()
            await wait_until_async(lambda: len(heard) == 2)
        assert heard[0] == ("192.0.2.1:5", b"x")
        assert heard[1] == ("192.0.2.7:51000", b"")

    run(scenario())


def test_a_target_that_takes_no_header(run: Any) -> None:
    async def scenario() -> None:
        ours, theirs = memory_pipe()
        await theirs.aclose()

        async def broken(asked: ConnectTo, /) -> Stream:
            return ours

        with pytest.raises(ConnectError, match=r"target\.test:1: it took no PROXY header") as error:
            await stack(ProxyProtocolSend(), broken)(ConnectTo(Address("target.test", 1)))
        assert error.value.kind == "reset"

    run(scenario())
