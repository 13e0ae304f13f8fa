"""Clients and targets of UDP, played by the test itself."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from tests.support.peers import PATIENCE

__all__ = ["Spoofer", "echo", "numbered", "udp_client", "udp_target"]

Address = tuple[str, int]


def udp_target(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A bound socket with room for bursts."""
    sock = _socket(host)
    sock.bind((host, port))
    return sock


def udp_client(address: Address, host: str | None = None) -> socket.socket:
    """A connected socket: the kernel lets nothing through from any other address."""
    sock = _socket(address[0])
    if host is not None:
        sock.bind((host, 0))
    sock.connect(address)
    return sock


def _socket(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
    return sock


def echo(target: socket.socket, count: int = 1) -> list[Address]:
    """Send back the next datagrams; where they came from."""
    senders: list[Address] = []
    for _ in range(count):
        said, sender = target.recvfrom(65_535)
        target.sendto(said, sender)
        senders.append(sender)
    return senders


def numbered(number: int, size: int) -> bytes:
    """A datagram that shows its place in a sequence, and any change."""
    return (struct.pack(">I", number) + bytes((number + n) & 255 for n in range(251)) * 270)[:size]


class Spoofer:
    """Sends from any address. Needs root, and belongs into a namespace."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def __enter__(self) -> Spoofer:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def send(self, source: Address, payload: bytes) -> None:
        length = 8 + len(payload)
        # The kernel fills in checksums and the identification; a UDP checksum of 0 means none.
        ip = struct.pack(
            ">BBHHHBBH4s4s",
            *(0x45, 0, 20 + length, 0, 0, 64, socket.IPPROTO_UDP, 0),
            socket.inet_aton(source[0]),
            socket.inet_aton(self._target[0]),
        )
        udp = struct.pack(">HHHH", source[1], self._target[1], length, 0)
        self._raw.sendto(ip + udp + payload, self._target)

    def flood(self, sources: Sequence[Address], payload: bytes) -> None:
        for source in sources:
            self.send(source, payload)
