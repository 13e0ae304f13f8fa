"""Rules of a proxy as people write them."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.config.access_rule import RuleError, domain, parse_rule

__all__: list[str] = []


def test_every_word() -> None:
    rule = parse_rule(
        "allow user=alice,bob client=192.0.2.0/24,2001:db8::1 "
        "to=*.Example.com,example.org.,10.0.0.0/8,[2001:db8::]/32,@more.txt port=443,8000-8100"
    )
    assert rule.verdict == "allow"
    assert rule.users == ("alice", "bob")
    assert rule.clients == (ip_network("192.0.2.0/24"), ip_network("2001:db8::1"))
    assert rule.domains == ("*.example.com", "example.org")
    assert rule.networks == (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    assert rule.files == ("more.txt",)
    assert rule.ports == ((443, 443), (8000, 8100))


def test_all_narrows_nothing() -> None:
    rule = parse_rule("deny all")
    assert (rule.users, rule.clients, rule.domains, rule.networks, rule.ports) == ((),) * 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither allow nor deny"),
        ("permit all", '"permit" is neither'),
        ("deny", "deny what?"),
        ("deny all port=25", '"all" stands alone'),
        ("deny host=a", '"host=a" is none of'),
        ("deny to=", "to= has an empty value"),
        ("deny to=a,,b", "to= has an empty value"),
        ("deny to=@", "needs the path"),
        ("deny port=0", "no range of ports"),
        ("deny port=9-8", "no range of ports"),
        ("deny port=65536", "no range of ports"),
        ("deny port=http", '"http" is no port'),
        ("deny client=example.com", "is not a network"),
        ("deny to=10.0.0.1/8", "inside of a network"),
        ("deny to=exa*mple.com", "is no domain"),
        ("deny to=a..b", "is no domain"),
    ],
)
def test_what_is_no_rule(text: str, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_rule(text)
    assert message in str(caught.value)
    assert caught.value.hint


def test_a_name_beyond_ascii_is_its_ascii_form() -> None:
    assert domain("*.bücher.example") == "*.xn--bcher-kva.example"


@given(st.text(max_size=80))
def test_nothing_but_a_rule_error(text: str) -> None:
    for candidate in (text, f"deny {text}", f"allow to={text}", f"deny port={text}"):
        try:
            parse_rule(candidate)
        except RuleError as error:
            assert str(error)
