"""The client's half of HTTP CONNECT."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from qanat.stack.address import Address
from qanat.stack.codec.http_connect import (
    LONGEST_HEAD,
    ConnectAnswer,
    encode_connect,
    parse_connect_answer,
)
from qanat.stack.codec.socks5 import Credentials
from qanat.stack.codec.verdict import Parsed
from qanat.stack.errors import LocalProtocolError, RemoteProtocolError
from tests.support.splits import one_at_a_time, survives

__all__: list[str] = []


def test_the_request() -> None:
    assert encode_connect(Address("::1", 443)) == (
        b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n"
    )
    named = encode_connect(Address("a.example", 80), Credentials(b"john", b"secret"))
    assert b"\r\nProxy-Authorization: Basic am9objpzZWNyZXQ=\r\n" in named


@pytest.mark.parametrize("host", ["a b", "a\r\nX: y", "é.example"])
def test_a_target_can_not_add_lines(host: str) -> None:
    with pytest.raises(LocalProtocolError):
        encode_connect(Address(host, 80))


def test_a_colon_in_a_name_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        encode_connect(Address("a", 80), Credentials(b"a:b", b""))


def test_the_answer() -> None:
    raw = b"HTTP/1.1 200 Connection established\r\nVia:  1.1 x \r\nEmpty:\r\n\r\n"
    found = one_at_a_time(parse_connect_answer, raw)
    fields = (("via", "1.1 x"), ("empty", ""))
    assert found == Parsed(ConnectAnswer(200, fields), len(raw))
    assert parse_connect_answer(raw + b"SSH-2.0-") == found
    assert found.value.field("via") == "1.1 x"
    assert found.value.field("server") is None


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH",
        b"HTTP/2",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno field\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 " + b"x" * LONGEST_HEAD,
    ],
)
def test_what_is_no_answer(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_connect_answer(raw)


@given(
    some.sampled_from([b"", b"HTTP/1.", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 407 No\r\nA: "]),
    some.lists(some.sampled_from([b"\r\n", b"\r\n\r\n", b":", b" ", b"a", b"\0", b"\xff"])),
)
def test_any_bytes(begin: bytes, parts: list[bytes]) -> None:
    survives(parse_connect_answer, begin + b"".join(parts), LONGEST_HEAD)
