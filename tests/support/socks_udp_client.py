"""The datagram side of a SOCKS5 client, written from RFC 1928 section 7 and nothing of ours."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.peers import PATIENCE

__all__ = ["SocksDatagrams", "datagram", "udp_socket"]


@contextmanager
def udp_socket(host: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.setblocking(False)
        made.bind((host, port))
        yield made


def datagram(host: str, port: int, payload: bytes, fragment: int = 0) -> bytes:
    try:
        packed = ipaddress.ip_address(host).packed
        address = bytes([1 if len(packed) == 4 else 4]) + packed
    except ValueError:
        name = host.encode()
        address = bytes([3, len(name)]) + name
    return b"\0\0" + bytes([fragment]) + address + struct.pack("!H", port) + payload


class SocksDatagrams:
    """Sends through an association and reads what comes back."""

    def __init__(self, sock: socket.socket, relay: tuple[str, int]) -> None:
        self.socket = sock
        self.relay = relay

    def send(self, host: str, port: int, payload: bytes, fragment: int = 0) -> None:
        self.socket.sendto(datagram(host, port, payload, fragment), self.relay)

    async def receive(self) -> tuple[str, int, bytes]:
        """Sender and payload of the next datagram."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            data, sender = await loop.sock_recvfrom(self.socket, 65_536)
        assert sender[:2] == self.relay, "an answer comes from where the client sends to"
        assert data[:3] == b"\0\0\0"
        size = {1: 4, 4: 16}[data[3]]
        host = str(ipaddress.ip_address(data[4 : 4 + size]))
        (port,) = struct.unpack("!H", data[4 + size : 6 + size])
        return host, port, data[6 + size :]
