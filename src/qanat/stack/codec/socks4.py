"""SOCKS version 4, and 4a, which carries names: both sides, without I/O.

There is no RFC; these are the texts that NEC and Ylonen published. A request is a version, a
command, a port, an IPv4 address and a user's name that a zero ends. With an address of 0.0.0.x, x
not 0, the target's name follows (4a), ended by a zero, too.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from qanat.stack.address import Address, check_host
from qanat.stack.codec.socks5 import Command
from qanat.stack.codec.verdict import NEED_MORE, NeedMore, Parsed
from qanat.stack.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "Reply4",
    "Request4",
    "encode_reply4",
    "encode_request4",
    "parse_reply4",
    "parse_request4",
]

VERSION: Final = 4
_MOST: Final = 255
"""Bytes of the user's name and of the target's."""


class Reply4(IntEnum):
    GRANTED = 0x5A
    REJECTED = 0x5B
    NO_IDENTD = 0x5C
    OTHER_USER = 0x5D


@dataclass(frozen=True, slots=True)
class Request4:
    command: Command
    address: Address
    user: bytes


def parse_request4(data: bytes) -> Parsed[Request4] | NeedMore:
    """CONNECT and BIND; the host is a name with 4a."""
    if data and data[0] != VERSION:
        raise RemoteProtocolError(f"SOCKS version 4 begins with 4, not {data[0]}")
    if len(data) >= 2 and data[1] not in (1, 2):
        raise RemoteProtocolError(f"{data[1]} is no command of SOCKS 4")
    if len(data) < 9:
        return NEED_MORE
    port = data[2] << 8 | data[3]
    if data[1] == Command.CONNECT and port == 0:
        raise RemoteProtocolError("nobody can be connected to at port 0")
    user_end = _end(data, 8, "the user's name")
    if user_end is None:
        return NEED_MORE
    size = user_end + 1
    if data[4:7] == b"\0\0\0" and data[7]:
        name_end = _end(data, size, "the target's name")
        if name_end is None:
            return NEED_MORE
        host = data[size:name_end].decode("latin-1")
        try:
            check_host(host, host)
        except ValueError as error:
            raise RemoteProtocolError(str(error)) from None
        size = name_end + 1
    else:
        host = socket.inet_ntop(socket.AF_INET, data[4:8])
    return Parsed(Request4(Command(data[1]), Address(host, port), data[8:user_end]), size)


def _end(data: bytes, begin: int, what: str) -> int | None:
    end = data.find(b"\0", begin, begin + _MOST + 1)
    if end >= 0:
        return end
    if len(data) > begin + _MOST:
        raise RemoteProtocolError(f"{what} is longer than {_MOST} bytes")
    return None


def parse_reply4(data: bytes) -> Parsed[int] | NeedMore:
    """The code: ``Reply4.GRANTED``, or why not."""
    if data and data[0] != 0:
        raise RemoteProtocolError(f"a reply of SOCKS 4 begins with 0, not {data[0]}")
    if len(data) < 2:
        return NEED_MORE
    if data[1] != Reply4.GRANTED:
        # Nothing follows that means anything.
        return Parsed(data[1], len(data))
    return NEED_MORE if len(data) < 8 else Parsed(data[1], 8)


def encode_request4(command: Command, address: Address, user: bytes = b"") -> bytes:
    if len(user) > _MOST or b"\0" in user:
        raise LocalProtocolError("SOCKS 4 takes a user's name of 255 bytes without a zero byte")
    name = b""
    try:
        ip = socket.inet_pton(socket.AF_INET, address.host)
        if ip[:3] == b"\0\0\0" and ip[3]:
            raise LocalProtocolError(f"SOCKS 4 can't carry {address.host}")
    except (OSError, ValueError):
        if ":" in address.host:
            raise LocalProtocolError(f"SOCKS 4 can't carry {address.host}") from None
        ip = b"\0\0\0\1"
        try:
            name = address.host.encode("ascii") + b"\0"
        except UnicodeEncodeError:
            raise LocalProtocolError(f"SOCKS 4 can't carry {address.host!r}") from None
        if len(name) > _MOST + 1 or b"\0" in name[:-1]:
            raise LocalProtocolError(f"SOCKS 4 can't carry {address.host!r}") from None
    return b"\x04%c%b%b%b\0%b" % (command, address.port.to_bytes(2, "big"), ip, user, name)


def encode_reply4(code: int, bound: Address | None = None) -> bytes:
    """Zeros where there is no IPv4 address; clients ignore it for CONNECT."""
    if bound is not None:
        try:
            ip = socket.inet_pton(socket.AF_INET, bound.host)
            return b"\0%c%b%b" % (code, bound.port.to_bytes(2, "big"), ip)
        except OSError:
            pass
    return b"\0%c\0\0\0\0\0\0" % code
