"""The PROXY protocol, versions 1 and 2, without I/O: who stands behind a load balancer."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal

from qanat.stack.address import Address
from qanat.stack.codec.verdict import NEED_MORE, NeedMore, Parsed
from qanat.stack.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "LONGEST_HEADER",
    "ProxyHeader",
    "encode_proxy_header",
    "parse_proxy_header",
]

LONGEST_HEADER: Final = 16 + 65535
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_LINE: Final = b"PROXY "
_LONGEST_LINE: Final = 107
_FIXED: Final = 16
_CRC32C: Final = 0x03
_ADDRESS_SIZES: Final = {1: 4, 2: 16}
_UNIX: Final = 3
_UNIX_SIZE: Final = 216


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """Whom a connection is made for; also a fact in the extensions of a stream that came with one.

    Without addresses the connection speaks for itself: version 1's UNKNOWN, version 2's LOCAL.
    """

    source: Address | None = None
    destination: Address | None = None
    tlvs: tuple[tuple[int, bytes], ...] = field(default=())
    """What else version 2 tells, by type, without a checksum."""


def parse_proxy_header(data: bytes) -> Parsed[ProxyHeader] | NeedMore | None:
    """The header that the bytes begin with; None when they begin with something else.

    :raises RemoteProtocolError: one was begun and is wrong.
    """
    if data.startswith(_SIGNATURE):
        return _binary(data)
    if data.startswith(_LINE):
        return _text(data)
    if _SIGNATURE.startswith(data) or _LINE.startswith(data):
        return NEED_MORE
    return None


def encode_proxy_header(
    version: Literal[1, 2], header: ProxyHeader, *, checksum: bool = False
) -> bytes:
    """For a TCP connection. Addresses of two families both go out as IPv6."""
    ends = _ends(header)
    if version == 1:
        if ends is None:
            return b"PROXY UNKNOWN\r\n"
        (source, source_port), (destination, destination_port) = ends
        family = f"TCP{source.version}"
        line = f"PROXY {family} {source} {destination} {source_port} {destination_port}\r\n"
        return line.encode()
    if ends is None:
        command, family_code, addresses = 0x20, 0, b""
    else:
        (source, source_port), (destination, destination_port) = ends
        command, family_code = 0x21, 0x11 if source.version == 4 else 0x21
        ports = source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big")
        addresses = source.packed + destination.packed + ports
    tlvs = b"".join(
        bytes((kind,)) + len(value).to_bytes(2, "big") + value for kind, value in header.tlvs
    )
    body = addresses + tlvs
    if checksum:
        body += bytes((_CRC32C, 0, 4, 0, 0, 0, 0))
    if len(body) > 65535:
        raise LocalProtocolError(f"a PROXY header of {len(body)} bytes is too long")
    whole = _SIGNATURE + bytes((command, family_code)) + len(body).to_bytes(2, "big") + body
    if checksum:
        return whole[:-4] + _crc32c(whole).to_bytes(4, "big")
    return whole


_End = tuple[IPv4Address | IPv6Address, int]


def _ends(header: ProxyHeader) -> tuple[_End, _End] | None:
    if header.source is None or header.destination is None:
        return None
    source, destination = header.source.ip, header.destination.ip
    if source is None or destination is None:
        return None
    if source.version != destination.version:
        source, destination = _as_v6(source), _as_v6(destination)
    return (source, header.source.port), (destination, header.destination.port)


def _as_v6(ip: IPv4Address | IPv6Address) -> IPv6Address:
    return ip if isinstance(ip, IPv6Address) else IPv6Address(b"\0" * 10 + b"\xff\xff" + ip.packed)


def _text(data: bytes) -> Parsed[ProxyHeader] | NeedMore:
    end = data.find(b"\r\n", 0, _LONGEST_LINE)
    if end < 0:
        if len(data) >= _LONGEST_LINE:
            raise RemoteProtocolError("a PROXY line of more than 107 bytes")
        return NEED_MORE
    words = data[len(_LINE) : end].split(b" ")
    size = end + 2
    if words[0] == b"UNKNOWN":
        return Parsed(ProxyHeader(), size)
    if words[0] not in (b"TCP4", b"TCP6") or len(words) != 5:
        raise RemoteProtocolError("a PROXY line needs a protocol, two addresses and two ports")
    version = 4 if words[0] == b"TCP4" else 6
    source, destination = (_address(word, version) for word in words[1:3])
    source_port, destination_port = (_port(word) for word in words[3:5])
    header = ProxyHeader(Address(source, source_port), Address(destination, destination_port))
    return Parsed(header, size)


def _address(word: bytes, version: int) -> str:
    try:
        ip = ip_address(word.decode("ascii"))
    except ValueError:
        raise RemoteProtocolError(f"{word!r} in a PROXY line is no address") from None
    if ip.version != version or (isinstance(ip, IPv6Address) and ip.scope_id):
        raise RemoteProtocolError(f"{word!r} in a PROXY line is of another family")
    return _plain(ip)


def _port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or int(word) > 65535 or word != b"%d" % int(word):
        raise RemoteProtocolError(f"{word!r} in a PROXY line is no port")
    return int(word)


def _plain(ip: IPv4Address | IPv6Address) -> str:
    """IPv4 in IPv6 is the IPv4 address that it stands for."""
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return str(mapped or ip)


def _binary(data: bytes) -> Parsed[ProxyHeader] | NeedMore:
    if len(data) > 12 and data[12] >> 4 != 2:
        raise RemoteProtocolError(f"version {data[12] >> 4} of the PROXY protocol")
    if len(data) > 12 and data[12] & 15 > 1:
        raise RemoteProtocolError(f"{data[12] & 15} is no command of the PROXY protocol")
    if len(data) < _FIXED:
        return NEED_MORE
    size = _FIXED + (data[14] << 8 | data[15])
    if len(data) < size:
        return NEED_MORE
    whole = data[:size]
    family, kind = data[13] >> 4, data[13] & 15
    if family > _UNIX or kind > 2:
        raise RemoteProtocolError(f"a PROXY header of family {family} and protocol {kind}")
    ends: tuple[Address, Address] | None = None
    at = _FIXED
    if family in _ADDRESS_SIZES:
        length = _ADDRESS_SIZES[family]
        at += 2 * length + 4
        raw = whole[_FIXED:at]
        if at > size:
            raise RemoteProtocolError("a PROXY header that is too short for its addresses")
        hosts = (_plain(ip_address(raw[:length])), _plain(ip_address(raw[length : 2 * length])))
        ports = (raw[-4] << 8 | raw[-3], raw[-2] << 8 | raw[-1])
        ends = Address(hosts[0], ports[0]), Address(hosts[1], ports[1])
    elif family == _UNIX:
        at += _UNIX_SIZE
        if at > size:
            raise RemoteProtocolError("a PROXY header that is too short for its addresses")
    tlvs = _tlvs(whole, at)
    if data[12] & 15 == 0 or ends is None:
        return Parsed(ProxyHeader(tlvs=tlvs), size)
    return Parsed(ProxyHeader(*ends, tlvs), size)


def _tlvs(whole: bytes, at: int) -> tuple[tuple[int, bytes], ...]:
    found: list[tuple[int, bytes]] = []
    while at < len(whole):
        head = whole[at : at + 3]
        value = whole[at + 3 : at + 3 + int.from_bytes(head[1:], "big")]
        if len(head) < 3 or len(value) < int.from_bytes(head[1:], "big"):
            raise RemoteProtocolError("a PROXY header whose parts are longer than itself")
        if head[0] == _CRC32C:
            blank = whole[: at + 3] + bytes(len(value)) + whole[at + 3 + len(value) :]
            if len(value) != 4 or _crc32c(blank) != int.from_bytes(value, "big"):
                raise RemoteProtocolError("a PROXY header whose checksum is wrong")
        else:
            found.append((head[0], value))
        at += 3 + len(value)
    return tuple(found)


def _table() -> tuple[int, ...]:
    table: list[int] = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE: Final = _table()


def _crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC_TABLE[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF
