"""Name servers, plain and behind TLS."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.config.address import AddressError, NameServer
from qanat.config.dns_servers import SecureNameServer, parse_server

__all__: list[str] = []


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("tls://192.0.2.53", "tls://192.0.2.53:853#192.0.2.53"),
        ("tls://192.0.2.53:8853", "tls://192.0.2.53:8853#192.0.2.53"),
        ("tls://192.0.2.53:53", "tls://192.0.2.53:53#192.0.2.53"),
        ("tls://192.0.2.53#dns.example", "tls://192.0.2.53:853#dns.example"),
        ("tls://2001:DB8::53", "tls://[2001:db8::53]:853#2001:db8::53"),
        ("tls://[2001:db8::53]", "tls://[2001:db8::53]:853#2001:db8::53"),
        ("tls://[2001:db8::53]:53#a", "tls://[2001:db8::53]:53#a"),
        ("tls://dns.example/", "tls://dns.example:853#dns.example"),
        ("https://dns.example", "https://dns.example:443/dns-query#dns.example"),
        ("https://dns.example/q?a=b", "https://dns.example:443/q?a=b#dns.example"),
        ("https://192.0.2.53:8443/q#dns.example", "https://192.0.2.53:8443/q#dns.example"),
    ],
)
def test_behind_tls(text: str, written: str) -> None:
    made = parse_server(text)
    assert isinstance(made, SecureNameServer)
    assert str(made) == written
    assert parse_server(str(made)) == made


def test_plain_ones_are_read_as_ever() -> None:
    assert str(parse_server("192.0.2.53")) == "192.0.2.53:53"
    assert isinstance(parse_server("dns.example:5353"), NameServer)


def test_a_name_becomes_one_address_and_stays_what_is_verified() -> None:
    made = parse_server("https://dns.example/q")
    assert isinstance(made, SecureNameServer)
    assert made.at("[2001:db8::53]") == "https://[2001:db8::53]:443/q#dns.example"


@pytest.mark.parametrize(
    "text",
    [
        *("tls://", "tls:///q", "tls://a b", "tls://a/q", "tls://a#", "tls://a:0", "tls://a:99999"),
        *("https://[2001:db8::1]/q", "https://2001:db8::1", "https://a#::1"),
        *("https://a/q#b c", "https://", "udp://192.0.2.1", "quic://a", "TLS://a", "://a"),
        *("https://a/\r\n", "https://a/b c", "tls://[::1", "https://us\u00e9r@a/"),
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(AddressError):
        parse_server(text)


@given(
    st.sampled_from(["tls://", "https://", ""]),
    st.text(st.sampled_from("ab1.:[]/#-?")),
)
def test_whatever_the_text_an_answer_or_its_error(scheme: str, rest: str) -> None:
    try:
        made = parse_server(scheme + rest)
    except AddressError as error:
        assert str(error)
    else:
        assert parse_server(str(made)) == made
