"""The exact reading of option words."""

import click
import pytest

from qanat.cli.options import relay_options
from qanat.cli.strict import StrictOption, plain_form

PARAMETERS = relay_options()


def refused(*words: str) -> str:
    with pytest.raises(click.UsageError) as caught:
        plain_form(PARAMETERS, words)
    return caught.value.message


@pytest.mark.parametrize(
    "words",
    [
        ["-l", ":5000"],
        ["-l:5000"],
        ["-l=:5000"],
        ["--listen", ":5000"],
        ["--listen=:5000"],
    ],
    ids=" ".join,
)
def test_five_ways_to_give_a_value(words: list[str]) -> None:
    assert plain_form(PARAMETERS, words) == ["--listen=:5000"]


def test_only_the_first_equals_sign_belongs_to_the_option() -> None:
    assert plain_form(PARAMETERS, ["-c=a=b"]) == ["--config=a=b"]
    assert plain_form(PARAMETERS, ["--config=a=b"]) == ["--config=a=b"]
    assert plain_form(PARAMETERS, ["-c", "=b"]) == ["--config==b"]


def test_flags_may_be_bundled() -> None:
    assert plain_form(PARAMETERS, ["-du6"]) == ["--daemon", "--udp", "--ipv6"]


def test_a_bundle_may_end_in_an_option_with_its_value() -> None:
    assert plain_form(PARAMETERS, ["-ul:5000"]) == ["--udp", "--listen=:5000"]
    assert plain_form(PARAMETERS, ["-ul", ":5000"]) == ["--udp", "--listen=:5000"]


@pytest.mark.parametrize("again", [["-u"], ["--udp"], ["-du"]], ids=" ".join)
def test_a_flag_given_twice_is_refused(again: list[str]) -> None:
    assert refused("-u", *again) == "-u/--udp is given more than once"


def test_an_option_given_twice_is_refused() -> None:
    assert refused("-n", "1", "--nofile=2") == "-n/--nofile is given more than once"


def test_addresses_may_be_repeated() -> None:
    words = ["-l", "a:1", "-r", "b:1", "-l", "a:2", "-r", "b:2"]
    assert plain_form(PARAMETERS, words) == [
        "--listen=a:1",
        "--remote=b:1",
        "--listen=a:2",
        "--remote=b:2",
    ]


@pytest.mark.parametrize("words", [["-l"], ["--listen"], ["--listen="], ["-l="]], ids=" ".join)
def test_a_missing_value_is_refused(words: list[str]) -> None:
    assert refused(*words) == "-l/--listen needs a value"


def test_a_value_may_not_begin_with_a_dash() -> None:
    message = refused("-l", "-r", "b:1")
    assert message.startswith("-l/--listen needs a value, and '-r' can't be one")


def test_a_lone_dash_is_a_value() -> None:
    assert plain_form(PARAMETERS, ["-c", "-"]) == ["--config=-"]


@pytest.mark.parametrize("words", [["--udp=true"], ["-u=true"]], ids=" ".join)
def test_a_flag_takes_no_value(words: list[str]) -> None:
    assert refused(*words) == "-u/--udp takes no value"


def test_an_option_with_a_bare_value_needs_none() -> None:
    assert plain_form(PARAMETERS, ["--send-proxy"]) == ["--send-proxy=true"]
    assert plain_form(PARAMETERS, ["--send-proxy", "-u"]) == ["--send-proxy=true", "--udp"]
    assert plain_form(PARAMETERS, ["--send-proxy", "false"]) == ["--send-proxy=false"]


def test_the_nearest_option_is_suggested() -> None:
    assert refused("--lisen", ":1") == "no such option: --lisen; did you mean '--listen'?"


def test_no_suggestion_for_a_letter() -> None:
    assert refused("-q") == "no such option: -q"


@pytest.mark.parametrize("words", [["-h"], ["-u", "--help", "-u"], ["-uh"]], ids=" ".join)
def test_help_ends_the_reading(words: list[str]) -> None:
    assert plain_form(PARAMETERS, words) == ["--help"]


def test_positionals_come_last_and_keep_their_order() -> None:
    assert plain_form(PARAMETERS, ["a", "-u", "b"]) == ["--udp", "--", "a", "b"]
    assert plain_form(PARAMETERS, ["-u", "--", "-l"]) == ["--udp", "--", "-l"]


def test_what_follows_a_command_is_left_alone() -> None:
    words = ["-u", "convert", "-t", "json", "-t"]
    assert plain_form(PARAMETERS, words, interspersed=False) == ["--udp", "--", *words[1:]]


def test_every_option_of_relay_is_strict() -> None:
    assert all(isinstance(parameter, StrictOption) for parameter in PARAMETERS)
