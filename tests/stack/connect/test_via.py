"""Going through other proxies: each scheme, chains, refusals, and proxies that talk nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from qanat.proxy.auth import UserPass
from qanat.proxy.socks5 import Socks5Server
from qanat.stack.address import Address
from qanat.stack.codec.http_connect import encode_connect
from qanat.stack.codec.socks5 import Credentials
from qanat.stack.connect.resolve import Resolve
from qanat.stack.connect.resolver import Resolver
from qanat.stack.connect.target import ConnectTo
from qanat.stack.connect.via import ViaProxy
from qanat.stack.errors import ConnectError
from qanat.stack.leaves import echo
from qanat.stack.service import describe, stack
from qanat.stack.stream.base import Stream
from qanat.stack.stream.memory import MemoryNetwork
from tests.stack.conftest import Run

__all__: list[str] = []

PROXY = Address("proxy.test", 1080)
INNER = Address("inner.test", 1081)
ECHO = Address("echo.test", 7)
NUMBER = Address("192.0.2.7", 7)
USERS = UserPass({"john": "s:ecret"})
HERE = Resolve(Resolver({"echo.test": "192.0.2.7"}))

chunks = pytest.mark.parametrize("chunk", [1, 7, None])


class Scripted:
    """A proxy that answers each thing it hears with the next of its lines, then goes silent."""

    def __init__(self, *answers: bytes, ends: bool = False) -> None:
        self.answers = answers
        self.ends = ends
        self.heard = b""

    async def __call__(self, stream: Stream) -> None:
        for answer in self.answers:
            self.heard += await stream.read()
            await stream.write(answer)
        if self.ends:
            await stream.write_eof()
        while data := await stream.read():
            self.heard += data


async def hello(stream: Stream) -> None:
    await stream.write(b"hello")
    assert await stream.read_exactly(5) == b"hello"
    stream.abort()


def refused(run: Run[Any], url: str, proxy: Callable[[Stream], Any], **settings: Any) -> Any:
    async def of_loop() -> ConnectError:
        async with MemoryNetwork() as network:
            network.listen(PROXY, proxy)
            connector = ViaProxy(url, resolve=HERE, **settings)(network.connector)
            with pytest.raises(ConnectError) as caught:
                await connector(ConnectTo(ECHO))
            return caught.value

    return run(of_loop())


@chunks
@pytest.mark.parametrize(
    ("url", "auth"),
    [
        ("socks5h://proxy.test:1080", None),
        ("socks5://proxy.test:1080", None),
        ("socks4://proxy.test:1080", None),
        ("socks4a://john@proxy.test:1080", None),
        ("socks5h://john:s%3Aecret@proxy.test", USERS),
        ("SOCKS5://john:s:ecret@proxy.test:1080", USERS),
    ],
)
def test_our_own_proxy(run: Run[Any], chunk: int | None, url: str, auth: Any) -> None:
    asked_for: list[Address] = []

    async def exchange() -> None:
        async with MemoryNetwork(chunk=chunk) as network:

            async def note(asked: ConnectTo) -> Stream:
                asked_for.append(asked.target)
                return await network.connector(asked)

            network.listen(ECHO, echo)
            network.listen(NUMBER, echo)
            network.listen(PROXY, Socks5Server(note, auth=auth))
            connector = ViaProxy(url, resolve=HERE)(network.connector)
            await hello(await connector(ConnectTo(ECHO)))
            # What was resolved above is what the proxy is asked for.
            await hello(await connector(ConnectTo(ECHO, candidates=(NUMBER,))))

    run(exchange())
    here = url.lower().startswith(("socks5:", "socks4:"))
    assert asked_for == [NUMBER if here else ECHO, NUMBER]


@chunks
def test_http(run: Run[Any], chunk: int | None) -> None:
    proxy = Scripted(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\nearly")

    async def exchange() -> None:
        async with MemoryNetwork(chunk=chunk) as network:
            network.listen(PROXY, proxy)
            connector = ViaProxy("http://john:secret@proxy.test:1080")(network.connector)
            stream = await connector(ConnectTo(ECHO))
            assert await stream.read_exactly(5) == b"early"
            stream.abort()

    run(exchange())
    whole = encode_connect(ECHO, Credentials(b"john", b"secret"))
    assert proxy.heard
    assert whole.startswith(proxy.heard)


def test_http_with_an_interim_answer(run: Run[Any]) -> None:
    proxy = Scripted(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")

    async def exchange() -> None:
        async with MemoryNetwork() as network:
            network.listen(PROXY, proxy)
            stream = await ViaProxy("http://proxy.test:1080")(network.connector)(ConnectTo(ECHO))
            stream.abort()

    run(exchange())
    assert proxy.heard == b"CONNECT echo.test:7 HTTP/1.1\r\nHost: echo.test:7\r\n\r\n"


def test_a_chain_ends_at_its_outermost_layer(run: Run[Any]) -> None:
    met: list[str] = []

    async def exchange() -> None:
        async with MemoryNetwork() as network:

            def noting(name: str) -> Callable[[ConnectTo], Any]:
                async def connect(asked: ConnectTo) -> Stream:
                    met.append(f"{name} to {asked.target}")
                    return await network.connector(asked)

                return connect

            network.listen(ECHO, echo)
            network.listen(PROXY, Socks5Server(noting("near us")))
            network.listen(INNER, Socks5Server(noting("near the target")))
            connector = stack(
                ViaProxy("socks5h://inner.test:1081"),
                ViaProxy("socks5h://proxy.test:1080"),
                network.connector,
            )
            await hello(await connector(ConnectTo(ECHO)))

    run(exchange())
    assert met == ["near us to inner.test:1081", "near the target to echo.test:7"]


OPEN = b"\x05\x00"


@pytest.mark.parametrize(
    ("url", "answers", "kind"),
    [
        ("socks5h", [b"\x05\xff"], "proxy-auth"),
        ("socks5h", [b"\x05\x02"], "proxy-reply"),
        ("socks5h", [b"HTTP/1.1 400"], "proxy-reply"),
        ("socks5h", [OPEN, b"\x05\x01\x00\x01" + bytes(6)], "proxy-reply"),
        ("socks5h", [OPEN, b"\x05\x02"], "denied"),
        ("socks5h", [OPEN, b"\x05\x03"], "net-unreachable"),
        ("socks5h", [OPEN, b"\x05\x04"], "host-unreachable"),
        ("socks5h", [OPEN, b"\x05\x05"], "refused"),
        ("socks5h", [OPEN, b"\x05\x06"], "timeout"),
        ("socks5h", [OPEN, b"\x05\x07"], "proxy-reply"),
        ("socks5h", [OPEN, b"\x05\x63"], "proxy-reply"),
        ("socks5h", [OPEN, b"\x05\x00\x00\x07\x00"], "proxy-reply"),
        ("socks5h", [OPEN, b"\x04\x00"], "proxy-reply"),
        ("socks4a", [b"\x00\x5b" + bytes(6)], "proxy-reply"),
        ("socks4a", [b"\x00\x5d"], "proxy-auth"),
        ("socks4a", [b"\x05\x00"], "proxy-reply"),
        ("http", [b"HTTP/1.1 407 No\r\n\r\n"], "proxy-auth"),
        ("http", [b"HTTP/1.1 403 No\r\n\r\n"], "denied"),
        ("http", [b"HTTP/1.1 504 No\r\n\r\n"], "timeout"),
        ("http", [b"HTTP/1.1 502 No\r\n\r\n"], "proxy-reply"),
        (
            "http",
            [b'HTTP/1.1 502 No\r\nProxy-Status: far;x=y, near; error="dns_error"\r\n\r\n'],
            "dns",
        ),
        (
            "http",
            [b"HTTP/1.1 502 No\r\nProxy-Status: x; error=connection_refused\r\n\r\n"],
            "refused",
        ),
        ("http", [b"HTTP/1.1 101 Switching\r\n\r\n"], "proxy-reply"),
        ("http", [b"HTTP/1.1 100 Go on\r\n\r\n" * 9], "proxy-reply"),
        ("http", [b"SSH-2.0-OpenSSH\r\n"], "proxy-reply"),
        ("http", [b"HTTP/1.1 200 " + b"x" * 20_000], "proxy-reply"),
    ],
)
def test_what_a_proxy_says_no_with(
    run: Run[Any], url: str, answers: list[bytes], kind: str
) -> None:
    error = refused(run, f"{url}://proxy.test:1080", Scripted(*answers))
    assert error.kind == kind
    assert error.domain == (
        "application" if kind in ("proxy-auth", "proxy-reply", "denied") else "transport"
    )
    assert str(error).startswith(f"{ECHO} via {url}://{PROXY}: ")


def test_a_wrong_password(run: Run[Any]) -> None:
    async def nowhere(asked: ConnectTo) -> Stream:
        raise AssertionError("asked for a target")

    server = Socks5Server(nowhere, auth=USERS)
    error = refused(run, "socks5h://john:hunter2@proxy.test:1080", server)
    assert error.kind == "proxy-auth"
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("url", ["socks5h", "socks4a", "http"])
def test_a_proxy_that_is_silent(run: Run[Any], url: str) -> None:
    error = refused(run, f"{url}://proxy.test:1080", Scripted(), timeout=0.05)
    assert (error.kind, error.domain) == ("timeout", "transport")


@pytest.mark.parametrize("url", ["socks5h", "socks4a", "http"])
@pytest.mark.parametrize("ends", [True, False])
def test_a_proxy_that_goes_away(run: Run[Any], url: str, ends: bool) -> None:
    async def reset(stream: Stream) -> None:
        await stream.read()
        if ends:
            await stream.write_eof()
        else:
            stream.abort()

    assert refused(run, f"{url}://proxy.test:1080", reset).kind == "proxy-reply"


def test_a_target_that_can_not_be_asked_for(run: Run[Any]) -> None:
    async def exchange() -> None:
        async with MemoryNetwork() as network:
            network.listen(PROXY, Scripted())
            for url in ("socks4a", "socks5h", "http"):
                connector = ViaProxy(f"{url}://proxy.test:1080")(network.connector)
                host = "::1" if url == "socks4a" else "é.example"
                with pytest.raises(ConnectError) as caught:
                    await connector(ConnectTo(Address(host, 80)))
                assert (caught.value.kind, caught.value.domain) == ("local", "local")

    run(exchange())


@pytest.mark.parametrize("url", ["socks5h", "socks4a", "http"])
def test_cancelled_while_it_asks(run: Run[Any], url: str) -> None:
    async def exchange() -> None:
        heard, over = asyncio.Event(), asyncio.Event()

        async def silent(stream: Stream) -> None:
            await stream.read()
            heard.set()
            try:
                await stream.read()
            finally:
                over.set()

        async with MemoryNetwork() as network:
            network.listen(PROXY, silent)
            connector = ViaProxy(f"{url}://proxy.test:1080")(network.connector)

            async def dial() -> Stream:
                return await connector(ConnectTo(ECHO))

            task = asyncio.get_running_loop().create_task(dial())
            await heard.wait()
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            # The proxy sees the end: nothing is left open.
            await over.wait()

    run(exchange())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "proxy.test:1080",
        "ftp://proxy.test",
        "socks5://",
        "socks5://proxy.test:0",
        "socks5://proxy.test/path",
        "socks5://john:secret@proxy.test:1080?x",
        "socks5://john:secret@proxy test",
        "socks5://john@proxy.test",
        "socks4://john:secret@proxy.test",
        "http://jo%3Ahn:secret@proxy.test",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    async def nowhere(asked: ConnectTo) -> Stream:
        raise AssertionError

    with pytest.raises(ValueError, match=r"\w") as caught:
        ViaProxy(url)(nowhere)
    assert "secret" not in str(caught.value)


def test_a_stack_shows_no_password() -> None:
    shown = describe(ViaProxy("socks5h://john:secret@proxy.test:1080"))
    assert "secret" not in shown
    assert "proxy.test" in shown
