"""The codec of SOCKS version 5, by the sections of RFC 1928 and RFC 1929."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as some

from qanat.stack.address import Address
from qanat.stack.codec.socks5 import (
    Command,
    Credentials,
    Reply,
    Request,
    encode_credentials,
    encode_greeting,
    encode_method,
    encode_reply,
    encode_request,
    encode_status,
    parse_credentials,
    parse_greeting,
    parse_method,
    parse_reply,
    parse_request,
    parse_status,
)
from qanat.stack.codec.verdict import NEED_MORE, Parsed
from qanat.stack.errors import LocalProtocolError, RemoteProtocolError
from tests.support.splits import one_at_a_time, survives

__all__: list[str] = []

hosts = some.one_of(
    some.ip_addresses(v=4).map(str),
    # As sockets print it, which is not what every Python does for IPv4 inside of IPv6.
    some.ip_addresses(v=6).map(lambda ip: socket.inet_ntop(socket.AF_INET6, ip.packed)),
    some.from_regex(r"[a-z][a-z0-9-]{0,20}[a-z](\.[a-z]{2,10}){0,3}", fullmatch=True),
)
ports = some.integers(1, 65535)
short = some.binary(min_size=1, max_size=255)
parsers = [
    (parse_greeting, 257),
    (parse_method, 2),
    (parse_credentials, 513),
    (parse_status, 2),
    (parse_request, 262),
    (parse_reply, 262),
]


class TestGreeting:
    """RFC 1928 section 3."""

    @given(some.binary(min_size=1, max_size=255))
    def test_methods_come_back(self, methods: bytes) -> None:
        assert one_at_a_time(parse_greeting, encode_greeting(methods)).value == methods

    def test_what_follows_is_not_taken(self) -> None:
        assert parse_greeting(b"\x05\x01\x00\x05\x01\x00") == Parsed(b"\x00", 3)

    def test_nobody_offers_nothing(self) -> None:
        with pytest.raises(LocalProtocolError):
            encode_greeting(b"")

    def test_no_method_at_all_is_a_greeting(self) -> None:
        assert parse_greeting(b"\x05\x00") == Parsed(b"", 2)

    @given(some.integers(0, 255))
    def test_the_choice(self, method: int) -> None:
        assert one_at_a_time(parse_method, encode_method(method)).value == method

    @pytest.mark.parametrize("first", [b"G", b"\x16", b"\x04", b"\x00"])
    def test_another_protocol(self, first: bytes) -> None:
        with pytest.raises(RemoteProtocolError, match="begins with 5"):
            parse_greeting(first)


class TestCredentials:
    """RFC 1929 section 2."""

    @given(short, short)
    def test_they_come_back(self, name: bytes, password: bytes) -> None:
        given = Credentials(name, password)
        assert one_at_a_time(parse_credentials, encode_credentials(given)).value == given

    def test_a_password_is_never_shown(self) -> None:
        assert "secret" not in repr(Credentials(b"john", b"secret"))

    @pytest.mark.parametrize(
        "wrong", [Credentials(b"", b"x"), Credentials(b"x", b""), Credentials(b"x" * 256, b"x")]
    )
    def test_lengths(self, wrong: Credentials) -> None:
        with pytest.raises(LocalProtocolError):
            encode_credentials(wrong)

    @given(some.booleans())
    def test_the_status(self, accepted: bool) -> None:
        assert one_at_a_time(parse_status, encode_status(accepted)).value is accepted


class TestRequest:
    """RFC 1928 sections 4 and 5."""

    @given(some.sampled_from(Command), hosts, ports, some.binary(max_size=20))
    def test_it_comes_back(self, command: Command, host: str, port: int, after: bytes) -> None:
        raw = encode_request(command, Address(host, port))
        found = one_at_a_time(parse_request, raw)
        assert found == Parsed(Request(command, Address(host, port)), len(raw))
        assert parse_request(raw + after) == found

    @pytest.mark.parametrize(
        ("raw", "reply"),
        [
            (b"\x05\x04", Reply.COMMAND_NOT_SUPPORTED),
            (b"\x05\x00", Reply.COMMAND_NOT_SUPPORTED),
            (b"\x05\x01\x00\x02", Reply.ADDRESS_NOT_SUPPORTED),
            (b"\x05\x01\x00\x05\x01", Reply.ADDRESS_NOT_SUPPORTED),
            (b"\x05\x01\x00\x03\x00\x00\x50", Reply.HOST_UNREACHABLE),
            (b"\x05\x01\x00\x03\x03a\x00b\x00\x50", Reply.HOST_UNREACHABLE),
            (b"\x05\x01\x00\x03\x05127.1\x00\x50", Reply.HOST_UNREACHABLE),
            (b"\x05\x01\x00\x03\x02\xc3\xa9\x00\x50", Reply.HOST_UNREACHABLE),
            (b"\x05\x01\x00\x01\x7f\0\0\x01\x00\x00", Reply.GENERAL_FAILURE),
            (b"\x04\x01", Reply.GENERAL_FAILURE),
        ],
    )
    def test_wrong_ones_know_their_reply(self, raw: bytes, reply: Reply) -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            parse_request(raw)
        assert caught.value.reply == reply

    def test_port_zero_is_right_for_an_association(self) -> None:
        found = parse_request(b"\x05\x03\x00\x01\0\0\0\0\0\0")
        assert found == Parsed(Request(Command.UDP_ASSOCIATE, Address("0.0.0.0", 0)), 10)

    def test_a_zone_stays_at_home(self) -> None:
        raw = encode_request(Command.CONNECT, Address("fe80::1%lo", 80))
        found = parse_request(raw)
        assert found is not NEED_MORE
        assert found.value.address == Address("fe80::1", 80)

    @pytest.mark.parametrize("host", ["é.example", "a" * 256])
    def test_names_that_do_not_fit(self, host: str) -> None:
        with pytest.raises(LocalProtocolError):
            encode_request(Command.CONNECT, Address(host, 80))


class TestReply:
    """RFC 1928 section 6."""

    @given(hosts, ports)
    def test_success_comes_back(self, host: str, port: int) -> None:
        raw = encode_reply(Reply.SUCCEEDED, Address(host, port))
        assert one_at_a_time(parse_reply, raw).value == (0, Address(host, port))

    def test_without_an_address_it_is_zeros(self) -> None:
        assert encode_reply(Reply.REFUSED) == b"\x05\x05\x00\x01\0\0\0\0\0\0"

    @given(some.integers(1, 255))
    def test_a_failure_needs_two_bytes(self, code: int) -> None:
        assert one_at_a_time(parse_reply, bytes((5, code))).value == (code, None)

    def test_a_name_that_can_not_be_shown_is_no_address(self) -> None:
        found = parse_reply(b"\x05\x00\x00\x03\x02\x00\x1b\x00\x50")
        assert found == Parsed((0, None), 9)


@pytest.mark.parametrize(("parse", "cap"), parsers)
@given(data=some.binary(max_size=600), version=some.sampled_from([b"", b"\x05", b"\x01"]))
def test_any_bytes(parse: object, cap: int, data: bytes, version: bytes) -> None:
    survives(parse, version + data, cap)  # type: ignore[arg-type]
