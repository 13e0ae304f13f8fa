"""The codec of SOCKS versions 4 and 4a."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from qanat.stack.address import Address
from qanat.stack.codec.socks4 import (
    Reply4,
    Request4,
    encode_reply4,
    encode_request4,
    parse_reply4,
    parse_request4,
)
from qanat.stack.codec.socks5 import Command
from qanat.stack.codec.verdict import NEED_MORE, Parsed
from qanat.stack.errors import LocalProtocolError, RemoteProtocolError
from tests.support.splits import one_at_a_time, survives

__all__: list[str] = []

hosts = some.one_of(
    some.ip_addresses(v=4).filter(lambda ip: int(ip) == 0 or int(ip) > 255).map(str),
    some.from_regex(r"[a-z][a-z0-9-]{0,20}[a-z](\.[a-z]{2,10}){0,3}", fullmatch=True),
)
users = some.binary(max_size=255).map(lambda raw: raw.replace(b"\0", b"0"))


@given(hosts, some.integers(1, 65535), users, some.binary(max_size=20))
def test_requests_come_back(host: str, port: int, user: bytes, after: bytes) -> None:
    raw = encode_request4(Command.CONNECT, Address(host, port), user)
    found = one_at_a_time(parse_request4, raw)
    assert found == Parsed(Request4(Command.CONNECT, Address(host, port), user), len(raw))
    assert parse_request4(raw + after) == found


@pytest.mark.parametrize(
    "raw",
    [
        b"\x05",
        b"\x04\x03",
        b"\x04\x01\x00\x00\x7f\0\0\x01\x00",
        b"\x04\x01\x00\x50\x7f\0\0\x01" + b"u" * 256,
        b"\x04\x01\x00\x50\0\0\0\x01\0" + b"n" * 256,
        b"\x04\x01\x00\x50\0\0\0\x01\0\0",
        b"\x04\x01\x00\x50\0\0\0\x01\x000x7f.1\0",
    ],
)
def test_wrong_requests(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_request4(raw)


@pytest.mark.parametrize("host", ["::1", "0.0.0.7", "é", "n" * 256])
def test_targets_that_do_not_fit(host: str) -> None:
    with pytest.raises(LocalProtocolError):
        encode_request4(Command.CONNECT, Address(host, 80))


@pytest.mark.parametrize("user", [b"u" * 256, b"a\0b"])
def test_users_that_do_not_fit(user: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        encode_request4(Command.CONNECT, Address("192.0.2.1", 80), user)


def test_replies() -> None:
    granted = encode_reply4(Reply4.GRANTED, Address("192.0.2.1", 258))
    assert granted == b"\0\x5a\x01\x02\xc0\0\x02\x01"
    assert one_at_a_time(parse_reply4, granted).value == Reply4.GRANTED
    assert encode_reply4(Reply4.GRANTED, Address("::1", 1)) == b"\0\x5a" + bytes(6)
    assert one_at_a_time(parse_reply4, b"\0\x5b").value == Reply4.REJECTED
    assert parse_reply4(b"\0\x5a") is NEED_MORE
    with pytest.raises(RemoteProtocolError):
        parse_reply4(b"\x04\x5a")


@given(some.sampled_from([b"", b"\x04", b"\x04\x01\x00\x50\0\0\0\x01"]), some.binary(max_size=600))
def test_any_bytes(begin: bytes, data: bytes) -> None:
    survives(parse_request4, begin + data, 8 + 256 + 256)
    survives(parse_reply4, begin + data, 8)
