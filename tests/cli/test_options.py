"""The values that options take."""

from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.cli.options import (
    OVERRIDES,
    WITH_FILE_IGNORED,
    WITHOUT_EFFECT,
    Seconds,
    ServerList,
    Text,
    Whole,
    relay_options,
)

NAMES = {parameter.name: parameter for parameter in relay_options()}


def convert(kind: "click.ParamType[Any]", text: str) -> object:
    return kind.convert(text, None, None)


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_whole_numbers_pass(number: int) -> None:
    assert convert(Whole(), str(number)) == number


@pytest.mark.parametrize(
    "text", ["", "abc", "-1", "1.0", "1_000", " 1", "1 ", "0x10", "1e3", "\u0661", "9" * 30]
)
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a whole number from 0"):
        convert(Whole(), text)


@pytest.mark.parametrize("text", ["0", "128", "1000000"])
def test_numbers_out_of_bounds_are_refused_with_the_bounds(text: str) -> None:
    with pytest.raises(click.BadParameter, match="from 1 to 127"):
        convert(Whole(1, 127), text)


@pytest.mark.parametrize(("text", "number"), [("0", 0.0), ("2.5", 2.5), ("30", 30.0)])
def test_seconds_may_have_fractions(text: str, number: float) -> None:
    assert convert(Seconds(), text) == number


@pytest.mark.parametrize("text", ["", "nan", "inf", "-1", "1s", "1e3", ".", "99999999999"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a number of seconds"):
        convert(Seconds(), text)


def test_blanks_after_commas_are_no_part_of_a_server() -> None:
    assert convert(ServerList(), "1.1.1.1:53, [::1]:53") == ("1.1.1.1:53", "[::1]:53")


@pytest.mark.parametrize("text", [",", "1.1.1.1,", "a,,b", " "])
def test_empty_servers_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="empty entry"):
        convert(ServerList(), text)


@pytest.mark.parametrize("text", ["\udcff", "a\udc80:1"])
def test_bytes_that_are_no_text_are_refused(text: str) -> None:
    for kind in (Text(), ServerList()):
        with pytest.raises(click.BadParameter, match="is not text"):
            convert(kind, text)


def test_text_is_left_as_it_is() -> None:
    assert convert(Text(), " bücher.example:80") == " bücher.example:80"


def test_every_listed_name_is_an_option() -> None:
    assert set(OVERRIDES) | set(WITH_FILE_IGNORED) | set(WITHOUT_EFFECT) <= NAMES.keys()


def test_all_of_realms_options_are_there() -> None:
    given = {name for parameter in NAMES.values() for name in parameter.opts}
    letters = {f"-{letter}" for letter in "dumt6fzclrxieabnpj"}
    words = (
        "daemon udp mtcp ntcp ipv6 tfo splice config listen remote through interface "
        "listen-interface listen-transport remote-transport nofile pipe-page pre-conn-hook "
        "log-level log-output dns-mode dns-min-ttl dns-max-ttl dns-cache-size dns-protocol "
        "dns-servers send-proxy send-proxy-version accept-proxy accept-proxy-timeout "
        "tcp-timeout udp-timeout tcp-keepalive tcp-keepalive-probe"
    )
    assert letters <= given
    assert {f"--{word}" for word in words.split()} <= given
