"""The PROXY protocol's headers, both versions, both directions."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as some

from qanat.stack.address import Address
from qanat.stack.codec.proxy_protocol import (
    LONGEST_HEADER,
    ProxyHeader,
    encode_proxy_header,
    parse_proxy_header,
)
from qanat.stack.codec.verdict import NEED_MORE, NeedMore, Parsed
from qanat.stack.errors import LocalProtocolError, RemoteProtocolError
from tests.support.splits import one_at_a_time, survives

__all__: list[str] = []


def parse(data: bytes) -> Parsed[ProxyHeader] | NeedMore:
    found = parse_proxy_header(data)
    if found is None:
        raise RemoteProtocolError("something else")
    return found


def read(data: bytes) -> ProxyHeader:
    found = parse(data)
    assert not isinstance(found, NeedMore)
    return found.value


ports = some.integers(0, 65535)
tlvs = some.lists(
    some.tuples(some.integers(0, 255).filter(lambda kind: kind != 3), some.binary(max_size=40)),
    max_size=4,
).map(tuple)


def plain_v6(ip: object) -> bool:
    return getattr(ip, "ipv4_mapped", None) is None


@some.composite
def headers(draw: some.DrawFn) -> ProxyHeader:
    version: Literal[4, 6] = draw(some.sampled_from([4, 6]))
    hosts = some.ip_addresses(v=version).filter(plain_v6).map(str)
    return ProxyHeader(Address(draw(hosts), draw(ports)), Address(draw(hosts), draw(ports)))


@given(headers(), some.binary(max_size=20))
def test_lines_come_back(header: ProxyHeader, after: bytes) -> None:
    raw = encode_proxy_header(1, header)
    assert len(raw) <= 107
    found = one_at_a_time(parse, raw)
    assert found == Parsed(header, len(raw))
    assert parse(raw + after) == found


@given(headers(), tlvs, some.booleans(), some.binary(max_size=20))
def test_binary_headers_come_back(
    header: ProxyHeader, more: tuple[tuple[int, bytes], ...], checksum: bool, after: bytes
) -> None:
    header = ProxyHeader(header.source, header.destination, more)
    raw = encode_proxy_header(2, header, checksum=checksum)
    found = one_at_a_time(parse, raw)
    assert found == Parsed(header, len(raw))
    assert parse(raw + after) == found


def test_a_header_to_the_byte() -> None:
    header = ProxyHeader(Address("192.0.2.7", 51000), Address("198.51.100.1", 443))
    assert encode_proxy_header(1, header) == b"PROXY TCP4 192.0.2.7 198.51.100.1 51000 443\r\n"
    assert encode_proxy_header(2, header) == bytes.fromhex(
        "0d0a0d0a000d0a515549540a 21 11 000c c0000207 c6336401 c738 01bb"
    )


def test_connections_that_speak_for_themselves() -> None:
    assert read(b"PROXY UNKNOWN ffff:f... anything\r\n") == ProxyHeader()
    local = encode_proxy_header(2, ProxyHeader())
    assert read(local) == ProxyHeader()
    # LOCAL with addresses: they mean nothing.
    told = bytearray(
        encode_proxy_header(2, ProxyHeader(Address("192.0.2.7", 1), Address("192.0.2.8", 2)))
    )
    told[12] = 0x20
    assert read(bytes(told)) == ProxyHeader()
    unix = bytes.fromhex("0d0a0d0a000d0a515549540a 21 31 00d8") + bytes(216)
    assert read(unix) == ProxyHeader()


def test_mapped_addresses_are_what_they_stand_for() -> None:
    raw = b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.8 1 2\r\n"
    assert read(raw).source == Address("192.0.2.7", 1)
    mixed = ProxyHeader(Address("192.0.2.7", 1), Address("2001:db8::1", 2))
    for version in (1, 2):
        assert read(encode_proxy_header(version, mixed)) == mixed


def test_a_checksum_is_looked_at() -> None:
    header = ProxyHeader(Address("192.0.2.7", 51000), Address("198.51.100.1", 443))
    raw = encode_proxy_header(2, header, checksum=True)
    assert read(raw) == header
    for at in (16, len(raw) - 1):
        wrong = bytearray(raw)
        wrong[at] ^= 1
        with pytest.raises(RemoteProtocolError, match="checksum"):
            parse(bytes(wrong))


@pytest.mark.parametrize(
    "raw",
    [
        b"PROXY TCP4 192.0.2.7 198.51.100.1 51000\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 51000 65536\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 051000 443\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY SCTP 1 2 3 4\r\n",
        b"PROXY " + b"x" * 101,
        bytes.fromhex("0d0a0d0a000d0a515549540a 11"),
        bytes.fromhex("0d0a0d0a000d0a515549540a 22"),
        bytes.fromhex("0d0a0d0a000d0a515549540a 21 41 0000"),
        bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 0004") + bytes(4),
        bytes.fromhex("0d0a0d0a000d0a515549540a 20 00 0004 01 0009 00"),
    ],
)
def test_wrong_headers(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse(raw)


def test_what_is_no_header_and_what_may_become_one() -> None:
    assert parse_proxy_header(b"GET / HTTP/1.1") is None
    assert parse_proxy_header(b"PROXIMITY") is None
    assert parse_proxy_header(b"") is NEED_MORE
    assert parse_proxy_header(b"PRO") is NEED_MORE
    assert parse_proxy_header(b"\r\n\r\n\0\r") is NEED_MORE
    with pytest.raises(LocalProtocolError, match="too long"):
        encode_proxy_header(2, ProxyHeader(tlvs=((4, bytes(65535)),)))


@given(some.binary(max_size=200))
def test_other_bytes(raw: bytes) -> None:
    survives(parse, raw, LONGEST_HEADER)
    survives(parse, b"PROXY TCP4 " + raw, 107)
    survives(parse, bytes.fromhex("0d0a0d0a000d0a515549540a") + raw, LONGEST_HEADER)
