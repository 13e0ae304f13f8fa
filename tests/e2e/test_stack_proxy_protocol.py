"""haproxy between two stacks: it believes the headers that we send, and we those that it sends."""

from __future__ import annotations

import asyncio
import shutil
import socket
from pathlib import Path
from typing import Literal

import pytest

from qanat.stack import (
    Address,
    Client,
    ConnectTo,
    Peer,
    ProxyProtocolAccept,
    ProxyProtocolSend,
    Stream,
    TcpConnector,
    open_server,
    stack,
)
from qanat.stack.facts import Listener
from tests.support.wait import wait_until_async

__all__: list[str] = []

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def tell(stream: Stream, /) -> None:
    """Answers with who the client is, and with what it said."""
    heard = await stream.read_exactly(5)
    await stream.write(f"{stream.ext.require(Client).address} {heard.decode()}".encode())
    await stream.write_eof()


@pytest.mark.parametrize(
    "theirs", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"]
)
@pytest.mark.parametrize("ours", [1, 2])
@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_the_client_is_known_behind_haproxy(
    tmp_path: Path, host: str, ours: Literal[1, 2], theirs: str
) -> None:
    async def scenario() -> bytes:
        async with open_server() as server:
            back = server.tcp("127.0.0.1:0", stack(ProxyProtocolAccept(), tell)).address
            running = asyncio.ensure_future(server.run(signals=False))
            front = free_port()
            file = tmp_path / "haproxy.cfg"
            file.write_text(
                "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n"
                " timeout server 30s\nlisten front\n"
                f" bind 127.0.0.1:{front} accept-proxy\n server back {back} {theirs}\n"
            )
            haproxy = await asyncio.create_subprocess_exec("haproxy", "-q", "-db", "-f", str(file))
            try:
                await wait_until_async(lambda: listens(front), what="haproxy listens")
                connector = stack(ProxyProtocolSend(ours, checksum=ours == 2), TcpConnector())
                asked = ConnectTo(Address("127.0.0.1", front))
                asked.ext.insert(Peer(Address(host, 4711)))
                asked.ext.insert(
                    Listener(Address("2001:db8::1" if ":" in host else "192.0.2.1", 80))
                )
                stream = await connector(asked)
                await stream.write(b"hello")
                answer = b""
                while part := await stream.read():
                    answer += part
                await stream.aclose()
                return answer
            finally:
                haproxy.kill()
                await haproxy.wait()
                server.shutdown(now=True)
                await running

    assert asyncio.run(scenario()).decode() == f"{Address(host, 4711)} hello"
