from __future__ import annotations

import copy
import pickle

import pytest

from qanat.errors import (
    ABSENT,
    BindError,
    ConfigError,
    ControlError,
    EngineClosed,
    Problem,
    QanatError,
    RelayStateError,
)

ALL = [
    QanatError("text", code="odd"),
    ConfigError([Problem("wrong", key="listen", value=1), Problem("worse")]),
    BindError("web", "1.2.3.4:80", 98, "Address already in use"),
    EngineClosed("gone"),
    RelayStateError("not running"),
    ControlError("no socket", code="not_running"),
]


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("no endpoints"), "no endpoints"),
        (
            Problem("not a port", "a.toml", 3, 10, "endpoints[0].listen", ":x", "0 to 65535"),
            'a.toml:3:10: endpoints[0].listen = ":x": not a port (0 to 65535)',
        ),
        (Problem("unreadable", file="a.toml"), "a.toml: unreadable"),
        (
            Problem("unknown key", file="a.toml", line=3, key="lisen"),
            "a.toml:3: lisen: unknown key",
        ),
        (Problem("unclosed string", line=3, column=4), "line 3, column 4: unclosed string"),
        (Problem("unclosed string", line=3), "line 3: unclosed string"),
        (Problem("needs a text", key="remote", value=None), "remote = null: needs a text"),
        (Problem("wrong type", key="no_tcp", value=True), "no_tcp = true: wrong type"),
        (Problem("too high", key="port", value=70000), "port = 70000: too high"),
    ],
)
def test_a_problem_says_where_what_and_what_would_be_right(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_a_long_value_is_shown_in_part() -> None:
    text = str(Problem("too long", key="name", value="x" * 1000))
    assert len(text) < 120
    assert text.endswith("...: too long")


def test_a_config_error_has_a_line_for_each_problem() -> None:
    error = ConfigError([Problem("first"), Problem("second", key="k")])
    assert str(error) == error.message == "first\nk: second"
    assert [problem.message for problem in error.problems] == ["first", "second"]


def test_a_bind_error_names_endpoint_address_and_reason() -> None:
    error = BindError("web", "1.2.3.4:80", 98, "Address already in use")
    assert str(error) == "endpoint web: can't listen on 1.2.3.4:80: Address already in use"
    assert (error.endpoint, error.address, error.errno) == ("web", "1.2.3.4:80", 98)


def test_codes_are_stable() -> None:
    assert [error.code for error in ALL] == [
        "odd",
        "config",
        "bind",
        "closed",
        "state",
        "not_running",
    ]


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_errors_have_one_root_and_survive_the_way_to_another_process(error: QanatError) -> None:
    assert isinstance(error, QanatError)
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)


def test_the_absent_value_is_one_of_its_kind() -> None:
    assert pickle.loads(pickle.dumps(ABSENT)) is ABSENT  # noqa: S301
    assert not ABSENT
    assert repr(ABSENT) == "<absent>"
