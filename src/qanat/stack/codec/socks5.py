"""SOCKS version 5 (RFC 1928) with user names and passwords (RFC 1929), both sides, without I/O.

The exchange: the client offers methods, the server chooses one (0xFF: none of them); with method
0x02 name and password follow and a status; then one request and one reply. All lengths are single
bytes, so each message has a cap by nature.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from qanat.stack.address import Address, check_host
from qanat.stack.codec.verdict import NEED_MORE, NeedMore, Parsed
from qanat.stack.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "Command",
    "Credentials",
    "Method",
    "Reply",
    "Request",
    "encode_credentials",
    "encode_greeting",
    "encode_method",
    "encode_reply",
    "encode_request",
    "encode_status",
    "parse_credentials",
    "parse_greeting",
    "parse_method",
    "parse_reply",
    "parse_request",
    "parse_status",
]

VERSION: Final = 5
_AUTH_VERSION: Final = 1
_IPV4: Final = 1
_NAME: Final = 3
_IPV6: Final = 4


class Method(IntEnum):
    """RFC 1928 section 3."""

    NONE = 0x00
    PASSWORD = 0x02
    NO_ACCEPTABLE = 0xFF


class Command(IntEnum):
    """RFC 1928 section 4."""

    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3


class Reply(IntEnum):
    """RFC 1928 section 6."""

    SUCCEEDED = 0x00
    GENERAL_FAILURE = 0x01
    NOT_ALLOWED = 0x02
    NETWORK_UNREACHABLE = 0x03
    HOST_UNREACHABLE = 0x04
    REFUSED = 0x05
    TTL_EXPIRED = 0x06
    COMMAND_NOT_SUPPORTED = 0x07
    ADDRESS_NOT_SUPPORTED = 0x08


@dataclass(frozen=True, slots=True)
class Credentials:
    """As bytes: RFC 1929 says nothing about their encoding."""

    name: bytes
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """What a client wants. The port may be 0 except for CONNECT."""

    command: Command
    address: Address


def parse_greeting(data: bytes) -> Parsed[bytes] | NeedMore:
    """The methods that a client offers, a byte each."""
    if data and data[0] != VERSION:
        raise RemoteProtocolError(f"SOCKS version 5 begins with 5, not {data[0]}")
    if len(data) < 2 or len(data) < 2 + data[1]:
        return NEED_MORE
    size = 2 + data[1]
    return Parsed(data[2:size], size)


def parse_method(data: bytes) -> Parsed[int] | NeedMore:
    """What a server chose."""
    if data and data[0] != VERSION:
        raise RemoteProtocolError(f"SOCKS version 5 begins with 5, not {data[0]}")
    return NEED_MORE if len(data) < 2 else Parsed(data[1], 2)


def parse_credentials(data: bytes) -> Parsed[Credentials] | NeedMore:
    """RFC 1929 section 2."""
    if data and data[0] != _AUTH_VERSION:
        raise RemoteProtocolError(
            f"version 1 of the password exchange begins with 1, not {data[0]}"
        )
    if len(data) < 2:
        return NEED_MORE
    name_end = 2 + data[1]
    if len(data) <= name_end:
        return NEED_MORE
    size = name_end + 1 + data[name_end]
    if len(data) < size:
        return NEED_MORE
    return Parsed(Credentials(data[2:name_end], data[name_end + 1 : size]), size)


def parse_status(data: bytes) -> Parsed[bool] | NeedMore:
    """Whether a server took name and password."""
    # Some servers answer with the version of SOCKS here; both mean the same.
    if data and data[0] not in (_AUTH_VERSION, VERSION):
        raise RemoteProtocolError(f"a status of the password exchange begins with 1, not {data[0]}")
    return NEED_MORE if len(data) < 2 else Parsed(data[1] == 0, 2)


def parse_request(data: bytes) -> Parsed[Request] | NeedMore:
    """RFC 1928 section 4. The errors hold the reply that fits."""
    if data and data[0] != VERSION:
        raise RemoteProtocolError(f"SOCKS version 5 begins with 5, not {data[0]}")
    if len(data) >= 2 and not 1 <= data[1] <= 3:
        raise RemoteProtocolError(
            f"{data[1]} is no command", status=405, reply=Reply.COMMAND_NOT_SUPPORTED
        )
    found = _address(data)
    if found is NEED_MORE:
        return NEED_MORE
    host, port, size = found
    command = Command(data[1])
    if command is Command.CONNECT and port == 0:
        raise RemoteProtocolError("nobody can be connected to at port 0")
    return Parsed(Request(command, Address(host, port)), size)


def parse_reply(data: bytes) -> Parsed[tuple[int, Address | None]] | NeedMore:
    """The code of a server's reply and its address, None where that is nonsense.

    A failure is known by its first two bytes: many servers close right after less than the rest.
    """
    if data and data[0] != VERSION:
        raise RemoteProtocolError(f"SOCKS version 5 begins with 5, not {data[0]}")
    if len(data) < 2:
        return NEED_MORE
    code = data[1]
    if code != Reply.SUCCEEDED:
        return Parsed((code, None), len(data))
    try:
        found = _address(data, strict=False)
    except RemoteProtocolError as error:
        raise RemoteProtocolError(f"the reply of a SOCKS server: {error}") from None
    if found is NEED_MORE:
        return NEED_MORE
    host, port, size = found
    return Parsed((code, Address(host, port) if host else None), size)


def _address(data: bytes, *, strict: bool = True) -> tuple[str, int, int] | NeedMore:
    """Host, port and the size of the whole message; both messages have theirs at the same place."""
    if len(data) < 5:
        if len(data) == 4 and data[3] not in (_IPV4, _NAME, _IPV6):
            raise _no_type(data[3])
        return NEED_MORE
    kind = data[3]
    if kind == _IPV4:
        end = 8
    elif kind == _NAME:
        end = 5 + data[4]
    elif kind == _IPV6:
        end = 20
    else:
        raise _no_type(kind)
    if len(data) < end + 2:
        return NEED_MORE
    port = data[end] << 8 | data[end + 1]
    if kind == _IPV4:
        return socket.inet_ntop(socket.AF_INET, data[4:8]), port, end + 2
    if kind == _IPV6:
        return socket.inet_ntop(socket.AF_INET6, data[4:20]), port, end + 2
    host = data[5:end].decode("latin-1")
    if strict:
        try:
            check_host(host, host)
        except ValueError as error:
            raise RemoteProtocolError(str(error), reply=Reply.HOST_UNREACHABLE) from None
    elif not host.isprintable():
        host = ""
    return host, port, end + 2


def _no_type(kind: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"{kind} is no type of address", reply=Reply.ADDRESS_NOT_SUPPORTED)


def encode_greeting(methods: Iterable[int]) -> bytes:
    offered = bytes(methods)
    if not 1 <= len(offered) <= 255:
        raise LocalProtocolError("a greeting offers 1 to 255 methods")
    return bytes((VERSION, len(offered))) + offered


def encode_method(method: int) -> bytes:
    return bytes((VERSION, method))


def encode_credentials(credentials: Credentials) -> bytes:
    name, password = credentials.name, credentials.password
    # RFC 1929 gives both 1 to 255 bytes.
    if not 1 <= len(name) <= 255 or not 1 <= len(password) <= 255:
        raise LocalProtocolError("SOCKS takes names and passwords of 1 to 255 bytes")
    return b"%c%c%b%c%b" % (_AUTH_VERSION, len(name), name, len(password), password)


def encode_status(accepted: bool) -> bytes:
    return bytes((_AUTH_VERSION, 0 if accepted else 1))


def encode_request(command: Command, address: Address) -> bytes:
    return b"\x05%c\x00%b" % (command, _encoded(address))


def encode_reply(code: int, bound: Address | None = None) -> bytes:
    """Without an address: zeros, as for failures."""
    if bound is None:
        return b"\x05%c\x00\x01\x00\x00\x00\x00\x00\x00" % code
    return b"\x05%c\x00%b" % (code, _encoded(bound))


def _encoded(address: Address) -> bytes:
    host = address.host
    port = address.port.to_bytes(2, "big")
    try:
        if ":" in host:
            # A zone means something on this machine alone.
            plain = host.partition("%")[0]
            return b"\x04" + socket.inet_pton(socket.AF_INET6, plain) + port
        return b"\x01" + socket.inet_pton(socket.AF_INET, host) + port
    except (OSError, ValueError):
        pass
    try:
        name = host.encode("ascii")
    except UnicodeEncodeError:
        name = b""
    if not 1 <= len(name) <= 255:
        raise LocalProtocolError(f"{host!r} is no name that SOCKS can carry")
    return b"\x03%c%b%b" % (len(name), name, port)
