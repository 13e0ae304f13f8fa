"""Choosing a service by a client's first bytes; whoever is chosen reads from the beginning."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from qanat.stack import (
    HTTP,
    SOCKS4,
    SOCKS5,
    SSH,
    TLS,
    Bridge,
    ClientHello,
    LocalProtocolError,
    Peek,
    PeekRoute,
    PhaseTimeout,
    RemoteProtocolError,
    Service,
    SniRoute,
    Stream,
    describe,
    memory_pipe,
)
from qanat.stack.codec.client_hello import LONGEST_HELLO
from tests.support.hellos import in_records, made_hello, real_hello
from tests.support.wait import wait_until_async

__all__: list[str] = []

CHUNKS = [1, 7, 65536]


def named(name: str) -> Service[Stream, str]:
    """Gives its name and what it read."""

    async def serve(stream: Stream, /) -> str:
        heard = b""
        while part := await stream.read():
            heard += part
        return f"{name}: {heard.hex()}"

    return serve


async def asked(
    service: Service[Stream, str], words: bytes, chunk: int = 65536, *, end: bool = True
) -> str:
    client, stream = memory_pipe(capacity=1 << 20, chunk=chunk)
    try:
        await client.write(words)
        if end:
            await client.write_eof()
        return await service(stream)
    finally:
        client.abort()
        stream.abort()


ROUTES = {sign: named(sign.name) for sign in (SOCKS4, SOCKS5, TLS, HTTP, SSH)}


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(
    ("words", "name"),
    [
        (b"\5\1\0", "SOCKS5"),
        (b"\4\1\0\x50\x7f\0\0\1\0", "SOCKS4"),
        (b"\x16\3\1\0\1x", "TLS"),
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP"),
        (b"PROPFIND / HTTP/1.1\r\n\r\n", "HTTP"),
        (b"SSH-2.0-x\r\n", "SSH"),
        (b"PING localhost\r\n", "other"),
        (b"EHLO x\r\n", "other"),
        (b"get / HTTP/1.1\r\n", "other"),
        (b"\x16\2\0", "other"),
        (b"GET", "other"),
        (b"", "other"),
        (b"X" * 100, "other"),
    ],
)
def test_signs(run: Any, words: bytes, name: str, chunk: int) -> None:
    service = Peek(ROUTES, fallback=named("other"))
    assert run(asked(service, words, chunk)) == f"{name}: {words.hex()}"


def test_who_fits_nothing_is_refused(run: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="none of TLS, HTTP"):
        run(asked(Peek({TLS: ROUTES[TLS], HTTP: ROUTES[HTTP]}), b"\5\1\0"))


def test_who_says_nothing_gets_the_fallback(run: Any) -> None:
    async def greet(stream: Stream, /) -> str:
        return "220 welcome"

    patient = Peek(ROUTES, fallback=greet, timeout=0.02)
    assert run(asked(patient, b"", end=False)) == "220 welcome"
    assert run(asked(patient, b"GE", end=False)) == "220 welcome"
    with pytest.raises(PhaseTimeout, match="first-bytes"):
        run(asked(Peek(ROUTES, timeout=0.02), b"", end=False))


def router(**more: Any) -> SniRoute[str]:
    names = ("www.example.com", "*.example.com", "*.deep.example.com", "Other.TEST.")
    return SniRoute({name: named(name) for name in names}, **more)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("www.example.com", "www.example.com"),
        ("WWW.EXAMPLE.COM", "www.example.com"),
        ("a.example.com", "*.example.com"),
        ("a.b.example.com", "*.example.com"),
        ("x.deep.example.com", "*.deep.example.com"),
        ("example.com", "default"),
        ("badexample.com", "default"),
        ("other.test", "Other.TEST."),
        (None, "default"),
        ("192.0.2.1", "default"),
    ],
)
def test_names_choose(run: Any, name: str | None, chosen: str, chunk: int) -> None:
    hello = real_hello(name) + b"more records"
    heard = run(asked(router(default=named("default")), hello, chunk))
    assert heard == f"{chosen}: {hello.hex()}"


@pytest.mark.parametrize("chunk", [100, 65536])
def test_a_long_hello_in_small_records(run: Any, chunk: int) -> None:
    raw = in_records(made_hello(name=b"www.example.com", padding=16_000), 500)
    assert run(asked(router(), raw, chunk)) == f"www.example.com: {raw.hex()}"


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\3\1\0\0",
        b"\x16\3",
        b"",
        in_records(b"\1\0\xff\xff" + bytes(70_000), 1)[: LONGEST_HELLO + 100],
    ],
)
def test_what_is_no_hello_goes_to_the_default_or_nowhere(run: Any, words: bytes) -> None:
    heard = run(asked(router(default=named("default")), words))
    assert heard == f"default: {words.hex()}"
    with pytest.raises(RemoteProtocolError):
        run(asked(router(), words))


def test_the_hello_is_a_fact(run: Any) -> None:
    async def tell(stream: Stream, /) -> str:
        hello = stream.ext.require(ClientHello)
        return f"{hello.server_name} {hello.alpn} {hello.ja4[:4]}"

    service = SniRoute({"a.test": tell})
    assert run(asked(service, real_hello("a.test", ("h2",)))) == "a.test ('h2',) t13d"


def test_silence(run: Any) -> None:
    async def greet(stream: Stream, /) -> str:
        return "default"

    assert run(asked(SniRoute({}, greet, timeout=0.02), b"\x16\3\1", end=False)) == "default"
    with pytest.raises(PhaseTimeout):
        run(asked(SniRoute({}, timeout=0.02), b"\x16\3\1", end=False))


def test_a_cancelled_look_takes_nothing(run: Any) -> None:
    async def scenario() -> None:
        client, stream = memory_pipe(chunk=1)
        await client.write(b"\x16\3\1")
        looking = asyncio.ensure_future(router()(stream))
        await asyncio.wait([looking], timeout=0.02)
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
        assert await stream.read_exactly(3) == b"\x16\3\1"
        client.abort()
        stream.abort()

    run(scenario())


@pytest.mark.parametrize("pattern", ["", "*", "*.", "a.*.test", "*a.test", ".test"])
def test_wrong_patterns(pattern: str) -> None:
    with pytest.raises(LocalProtocolError, match="no name and no pattern"):
        SniRoute({pattern: named("x")})


def test_it_is_described() -> None:
    text: Callable[[object], str] = describe
    assert text(Peek({TLS: _named_service}, timeout=3)).startswith("Peek(routes={TLS: ")
    assert "_table" not in text(SniRoute({"a.test": _named_service}))


async def _named_service(stream: Stream, /) -> str:
    return "named"


async def bridged(
    said: bytes, *, by: str = "client", chunk: int = 65536, seconds: float | None = None
) -> tuple[str, bytes, bytes]:
    """Who was chosen, and what both sides had said when that one read it."""
    client, near = memory_pipe(chunk=chunk)
    target, far = memory_pipe(chunk=chunk)
    picked: list[str] = []

    def chosen(name: str) -> Service[Bridge, tuple[str, bytes, bytes]]:
        async def serve(bridge: Bridge, /) -> tuple[str, bytes, bytes]:
            picked.append(name)
            up = down = b""
            while part := await bridge.client.read():
                up += part
            while part := await bridge.upstream.read():
                down += part
            return name, up, down

        return serve

    route = PeekRoute({TLS: chosen("tls"), HTTP: chosen("http")}, chosen("other"), timeout=seconds)
    try:
        choosing = asyncio.ensure_future(route(Bridge(near, far)))
        for stream, speaks in ((client, by == "client"), (target, by == "target")):
            if speaks:
                await stream.write(said)
        if said or seconds is not None:
            # Nobody has ended anything yet.
            await wait_until_async(lambda: picked)
        await client.write_eof()
        await target.write_eof()
        return await choosing
    finally:
        for stream in (client, near, target, far):
            stream.abort()


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_bridge_goes_by_what_its_client_says(run: Any, chunk: int) -> None:
    hello = in_records(made_hello(name=b"a.test"))
    assert run(bridged(hello, chunk=chunk)) == ("tls", hello, b"")
    get = b"GET / HTTP/1.1\r\n\r\n"
    assert run(bridged(get, chunk=chunk)) == ("http", get, b"")
    assert run(bridged(b"SSH-2.0-x\r\n", chunk=chunk)) == ("other", b"SSH-2.0-x\r\n", b"")
    assert run(bridged(b"", chunk=chunk)) == ("other", b"", b"")


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_server_that_speaks_first_does_not_wait(run: Any, chunk: int) -> None:
    banner = b"220 mail.test\r\n"
    assert run(bridged(banner, by="target", chunk=chunk)) == ("other", b"", banner)


def test_a_bridge_on_which_nobody_speaks_is_not_held_for_ever(run: Any) -> None:
    assert run(bridged(b"", by="nobody", seconds=0.05)) == ("other", b"", b"")
