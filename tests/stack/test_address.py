"""Hosts and ports: what is read, what is refused, and that printing is the inverse of reading."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.stack.address import Address

__all__: list[str] = []


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("example.com:80", "example.com", 80),
        ("example.com.:80", "example.com.", 80),
        ("_srv.a-b.example:1", "_srv.a-b.example", 1),
        ("192.0.2.1:65535", "192.0.2.1", 65535),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
        ("[fe80::1%eth0]:443", "fe80::1%eth0", 443),
    ],
)
def test_reading_and_printing(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no port"),
        ("example.com", "no port"),
        (":80", "is no host name"),
        ("example.com:", "is not a port"),
        ("example.com:0", "between 1 and 65535"),
        ("example.com:65536", "between 1 and 65535"),
        ("example.com:+80", "is not a port"),
        ("example.com:٨٠", "is not a port"),
        ("::1:80", "in brackets"),
        ("[::1:80", "not closed"),
        ("[::1]80", "not closed"),
        ("[127.0.0.1]:80", "only an IPv6 address"),
        ("[example.com]:80", "only an IPv6 address"),
        ("exam ple:80", "is no host name"),
        ("-a.example:80", "is no host name"),
        ("a..b:80", "is no host name"),
        ("bücher.example:80", "is no host name"),
        (f"{'a' * 64}.example:80", "is no host name"),
        ("127.1:80", "neither a name nor an address"),
        ("2130706433:80", "neither a name nor an address"),
        ("0x7f.0.0.0x1:80", "neither a name nor an address"),
        ("example.123:80", "neither a name nor an address"),
    ],
)
def test_what_is_no_address(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Address.parse(text)


def test_a_default_port() -> None:
    assert Address.parse("example.com", 80) == Address("example.com", 80)
    assert Address.parse("[::1]", 80) == Address("::1", 80)


def test_what_sockets_tell() -> None:
    assert Address.of_socket(("192.0.2.1", 5)) == Address("192.0.2.1", 5)
    assert Address.of_socket(("::1", 5, 0, 0)) == Address("::1", 5)
    assert str(Address.of_socket(("fe80::1", 5, 0, 3))) == "[fe80::1%3]:5"


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_literal_comes_back(ip: object, port: int) -> None:
    address = Address(str(ip), port)
    assert Address.parse(str(address)) == address
    assert address.ip == ip_address(str(ip))


@given(st.text(max_size=40))
def test_nothing_but_a_value_error(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == address


def test_a_zone_is_part_of_the_address() -> None:
    assert Address("fe80::1%2", 1).ip == IPv6Address("fe80::1%2")


def test_a_port_is_a_number() -> None:
    with pytest.raises(ValueError, match="port '80' is not a number"):
        Address("example.com", "80")  # type: ignore[arg-type]
