"""UDP ASSOCIATE asked for on a real connection: the reply, datagrams both ways, and the end."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest

from qanat.proxy.socks5 import Socks5Server
from qanat.proxy.socks_udp import FirstCandidate, UdpAssociate
from qanat.stack.address import Address
from qanat.stack.codec.socks5 import Command, encode_greeting, encode_reply, encode_request
from qanat.stack.connect.guard import Guard
from qanat.stack.connect.resolve import Resolve
from qanat.stack.connect.resolver import Resolver
from qanat.stack.connect.target import ConnectTo
from qanat.stack.connect.tcp import TcpConnector
from qanat.stack.courier import courier
from qanat.stack.errors import ConnectError
from qanat.stack.server import open_server
from qanat.stack.service import stack
from qanat.stack.stream.base import Stream
from qanat.stack.stream.memory import memory_pipe
from tests.stack.conftest import Run
from tests.support.peers import PATIENCE
from tests.support.socks_udp_client import datagram, udp_socket

__all__: list[str] = []

ASSOCIATE = encode_request(Command.UDP_ASSOCIATE, Address("0.0.0.0", 0))


async def service() -> Socks5Server:
    carrier = await courier()
    locate = stack(Resolve(Resolver({"a.example": "127.0.0.1"})), Guard(), FirstCandidate())
    return Socks5Server(TcpConnector(), udp=UdpAssociate(carrier, carrier.endpoint("udp"), locate))


async def connected(address: Address) -> Stream:
    return await TcpConnector()(ConnectTo(address))


async def heard(sock: socket.socket) -> tuple[bytes, Any]:
    """In a thread: uvloop does not wait for datagrams of plain sockets."""
    sock.settimeout(PATIENCE)
    return await asyncio.to_thread(sock.recvfrom, 65_536)


@pytest.mark.parametrize("host", ["127.0.0.1", "a.example"])
def test_datagrams_both_ways(run: Run[Any], host: str) -> None:
    async def exchange() -> None:
        async with open_server(drain=2.0) as server:
            listening = server.tcp("127.0.0.1:0", await service())
            assert listening.address is not None
            client = await connected(listening.address)
            await client.write(encode_greeting([0]) + ASSOCIATE)
            reply = await client.read_exactly(12)
            assert reply[:6] == b"\x05\x00\x05\x00\x00\x01"
            assert reply[6:10] == b"\x7f\x00\x00\x01"
            (port,) = struct.unpack("!H", reply[10:])
            with udp_socket() as mine, udp_socket() as target:
                there = target.getsockname()[1]
                mine.sendto(datagram(host, there, b"question"), ("127.0.0.1", port))
                question, sender = await heard(target)
                assert question == b"question"
                target.sendto(b"answer", sender)
                answer, _ = await heard(mine)
                assert answer == datagram("127.0.0.1", there, b"answer")
            # The association lives by the connection.
            await client.write_eof()
            async with asyncio.timeout(PATIENCE):
                assert await client.read() == b""
            await client.aclose()

    run(exchange())


def test_a_client_without_an_address_gets_none(run: Run[Any]) -> None:
    async def exchange() -> None:
        client, served = memory_pipe()
        await client.write(encode_greeting([0]) + ASSOCIATE)
        with pytest.raises(ConnectError) as caught:
            await (await service())(served)
        assert caught.value.kind == "local"
        assert await client.read_exactly(12) == b"\x05\x00" + encode_reply(0x01)
        assert await client.read() == b""
        client.abort()

    run(exchange())
