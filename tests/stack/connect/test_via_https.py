"""A proxy that is spoken to by TLS: its own identity is what counts, not the target's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qanat.stack.address import Address
from qanat.stack.connect.resolve import Resolve
from qanat.stack.connect.resolver import Resolver
from qanat.stack.connect.target import Connector, ConnectTo
from qanat.stack.connect.tcp import TcpConnector
from qanat.stack.connect.via import ViaProxy
from qanat.stack.errors import ConnectError
from qanat.stack.facts import Tls
from qanat.stack.layers.engine_tls import EngineTls
from qanat.stack.layers.engine_tls_connect import EngineTlsConnect
from qanat.stack.server import open_server
from qanat.stack.service import stack
from qanat.stack.stream.base import Stream
from qanat.stack.stream.memory import memory_pipe
from qanat.stack.tls import TlsServerConfig
from tests.stack.conftest import Run
from tests.support.certificates import Authority

__all__: list[str] = []

ECHO = Address("echo.test", 7)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    made = Authority(Path(tmp_path_factory.mktemp("authority")))
    made.issue("proxy", "DNS:proxy.test")
    yield made


async def proxy(stream: Stream) -> None:
    """Says yes and sends back what comes."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.read()
    assert head.startswith(b"CONNECT echo.test:7 HTTP/1.1\r\n")
    await stream.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while data := await stream.read():
        await stream.write(data)
    await stream.write_eof()


async def through(authority: Authority, tls: EngineTlsConnect | None, name: str) -> Tls | None:
    cert, key = (str(authority.folder / f"proxy.{kind}") for kind in ("crt", "key"))
    names = Resolve(Resolver({"proxy.test": "127.0.0.1", "other.test": "127.0.0.1"}))
    async with open_server(drain=0.5) as server:
        listening = server.tcp("127.0.0.1:0", EngineTls(TlsServerConfig(cert, key))(proxy))
        assert listening.address is not None
        url = f"https://{name}:{listening.address.port}"
        below: Connector = stack(names, TcpConnector())
        stream = await ViaProxy(url, tls=tls)(below)(ConnectTo(ECHO))
        await stream.write(b"hello")
        assert await stream.read_exactly(5) == b"hello"
        stream.abort()
        return stream.ext.get(Tls)


def test_it_connects(run: Run[Any], authority: Authority) -> None:
    found = run(through(authority, EngineTlsConnect(ca=str(authority.cert)), "proxy.test"))
    assert found.version == "TLSv1.3"
    assert found.server_name == "proxy.test"


@pytest.mark.parametrize(
    ("trusted", "name"), [(True, "other.test"), (False, "proxy.test"), (None, "proxy.test")]
)
def test_the_wrong_certificate(
    run: Run[Any], authority: Authority, trusted: bool | None, name: str
) -> None:
    """Another name, nobody's authority, and the default, which are the system's."""
    tls = None if trusted is None else EngineTlsConnect(ca=str(authority.cert) if trusted else None)

    async def exchange() -> ConnectError:
        with pytest.raises(ConnectError) as caught:
            await through(authority, tls, name)
        return caught.value

    error: ConnectError = run(exchange())
    assert (error.kind, error.domain) == ("tls", "application")


def test_what_is_no_socket(run: Run[Any]) -> None:
    async def exchange() -> None:
        ours, theirs = memory_pipe()

        async def memory(asked: ConnectTo) -> Stream:
            return ours

        with pytest.raises(ConnectError) as caught:
            await EngineTlsConnect()(memory)(ConnectTo(ECHO))
        assert (caught.value.kind, caught.value.domain) == ("local", "local")
        theirs.abort()

    run(exchange())
