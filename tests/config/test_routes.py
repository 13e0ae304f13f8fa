"""Routes: patterns, and the short forms."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.config.address import AddressError
from qanat.config.models import Endpoint, Route
from qanat.config.routes import parse_name_pattern
from qanat.errors import ConfigError

__all__: list[str] = []

GOOD: dict[str, Any] = {"listen": ":443", "remote": "default:443"}


def routed(route: object) -> list[Route]:
    return Endpoint.model_validate(GOOD | {"route": route}).route


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("a.example", "a.example"),
        ("A.Example.", "a.example"),
        ("*.A.example", "*.a.example"),
        ("*.com", "*.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("_x.a", "_x.a"),
    ],
)
def test_names(text: str, pattern: str) -> None:
    assert parse_name_pattern(text, addresses=False) == pattern
    assert parse_name_pattern(text, addresses=True) == pattern


@pytest.mark.parametrize(
    "text", ["", "*", "*.", "*a.example", "a.*.example", "*.*.example", "a b", "http://a", "a:443"]
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(AddressError):
        parse_name_pattern(text, addresses=True)


def test_addresses_are_hosts_and_no_server_names() -> None:
    assert parse_name_pattern("192.0.2.1", addresses=True) == "192.0.2.1"
    assert parse_name_pattern("2001:DB8::1", addresses=True) == "[2001:db8::1]"
    assert parse_name_pattern("[2001:db8::1]", addresses=True) == "[2001:db8::1]"
    for text in ("192.0.2.1", "[::1]", "*.192.0.2.1"):
        with pytest.raises(AddressError):
            parse_name_pattern(text, addresses=False)
    with pytest.raises(AddressError):
        parse_name_pattern("*.[::1]", addresses=True)


def test_a_list_of_routes() -> None:
    made = routed(
        [
            {"sni": "a.example", "remote": "a:1"},
            {"sni": ["b.example", "*.B.example"], "host": "c.example", "remote": "b:1"},
            {"bytes": ["SSH-", "0x00"], "remote": "c:1", "extra_remotes": ["d:1"]},
        ]
    )
    assert [list(route.patterns()) for route in made] == [
        [("sni", "a.example")],
        [("sni", "b.example"), ("sni", "*.b.example"), ("host", "c.example")],
        [("bytes", "5353482d"), ("bytes", "00")],
    ]
    assert made[2].remotes() == ["c:1", "d:1"]


def test_short_forms() -> None:
    assert routed({"sni": "a", "remote": "b:1"}) == routed([{"sni": ["a"], "remote": "b:1"}])
    assert routed({"a.example": "b:1", "*.c": "d:1"}) == [
        Route(sni=["a.example"], remote="b:1"),
        Route(sni=["*.c"], remote="d:1"),
    ]
    assert routed({}) == routed([]) == []


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ([{"remote": "a:1"}], "says nothing about the flows"),
        ([{"sni": "a"}], "remote: is missing"),
        ([{"sni": [], "remote": "a:1"}], "must not be empty"),
        ([{"sni": "", "remote": "a:1"}], "must not be empty"),
        ([{"sni": 5, "remote": "a:1"}], "must be a list"),
        ([{"sni": "a", "remote": "a"}], "no port"),
        ([{"sni": "a", "extra_remotes": ["b"], "remote": "a:1"}], "no port"),
        ([{"bytes": "0x1", "remote": "a:1"}], "is not hexadecimal"),
        ([{"bytes": "x" * 257, "remote": "a:1"}], "too many"),
        ([{"snl": "a", "remote": "a:1"}], "did you mean sni?"),
        ({"a b": "c:1"}, "is not a host name"),
        ({"a": "c"}, "no port"),
        ({"a": 5}, "must be text"),
        ("a", "must be a list"),
        (
            [{"sni": "a", "remote": "a:1"}, {"sni": ["b", "A."], "remote": "b:1"}],
            "sni a is in two routes",
        ),
        ([{"sni": "a", "remote": "a:1-2"}], "2 ports for the 1 of listen"),
    ],
)
def test_refuses(route: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint(**GOOD, route=route)
    assert message in str(caught.value)


@given(
    st.recursive(
        st.text(max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["sni", "host", "bytes", "remote", "x"]), inner, max_size=3
            )
        ),
        max_leaves=8,
    )
)
def test_whatever_is_given_an_answer_or_its_error(route: Any) -> None:
    try:
        Endpoint(**GOOD, route=route)
    except ConfigError as error:
        assert all(problem.message for problem in error.problems)
