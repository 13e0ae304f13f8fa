"""Networks of access lists."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.config.address import AddressError
from qanat.config.networks import parse_network

__all__: list[str] = []


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("2001:db8:0:0::/64", "2001:db8::/64"),
        ("2001:db8::7", "2001:db8::7/128"),
        ("[2001:db8::]/32", "2001:db8::/32"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
    ],
)
def test_reads(text: str, network: str) -> None:
    assert str(parse_network(text)) == network


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "10.0.0.0/8 ", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0/8", "/8"),
        *("2001:db8::/129", "fe80::1%eth0", "fe80::/10%eth0", "localhost", "10.0.0.0/255.0.0.0"),
        *("10.0.0.0/\u0668", "1.2.3.4:80", "[1.2.3.4", "all", "::ffff:1.2.3.0/1200"),
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_network(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10.0.0.1/8", "10.0.0.0/8, or 10.0.0.1 alone"),
        ("2001:db8::1/32", "2001:db8::/32, or 2001:db8::1 alone"),
    ],
)
def test_an_address_that_is_not_the_first_of_its_network_may_be_a_mistake(
    text: str, hint: str
) -> None:
    with pytest.raises(AddressError, match="one address inside of a network") as caught:
        parse_network(text)
    assert caught.value.hint == hint


@given(st.ip_addresses(), st.integers(0, 128))
def test_every_network_is_read(address: object, length: int) -> None:
    most = 32 if "." in str(address) and ":" not in str(address) else 128
    network = ip_network(f"{address}/{min(length, most)}", strict=False)
    made = parse_network(str(network))
    assert parse_network(str(made)) == made
    assert made.num_addresses == network.num_addresses


@given(st.text(st.sampled_from("0123456789abcdef.:/[]%- ")))
def test_whatever_the_text_an_answer_or_its_error(text: str) -> None:
    try:
        parse_network(text)
    except AddressError as error:
        assert str(error)
