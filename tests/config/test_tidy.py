"""What a file may say beside what the models know."""

import json
from typing import Any

import pytest

from qanat.config.document import read
from qanat.config.tidy import Source, tidy

__all__: list[str] = []


def source(content: dict[str, Any], file: str = "a.json") -> Source:
    return tidy(read(json.dumps(content, indent=1), file))


def told(content: dict[str, Any]) -> list[tuple[str | None, str, str | None]]:
    found = source(content).problems
    assert all(problem.severity == "warning" for problem in found)
    return [(problem.key, problem.message, problem.hint) for problem in found]


def test_what_is_known_stays_as_it_is() -> None:
    content = {"endpoints": [{"listen": 5, "network": {"use_udp": True}}], "log": {}, "drain": 3}
    made = source(content)
    assert (made.content, made.problems, made.written) == (content, [], {})


@pytest.mark.parametrize(
    ("content", "key", "hint"),
    [
        ({"endpoint": []}, "endpoint", "did you mean endpoints?"),
        ({"network": {"tcp_timeuot": 1}}, "network.tcp_timeuot", "did you mean tcp_timeout?"),
        ({"network": {"Use-UDP": 1}}, "network.Use-UDP", "did you mean use_udp?"),
        ({"log": {"colour": 1}}, "log.colour", None),
        ({"use_udp": True}, "use_udp", "use_udp belongs in the table network"),
        ({"listen": "a"}, "listen", "listen belongs in an entry of endpoints"),
        ({"network": {"workers": 1}}, "network.workers", "workers belongs at the top of the file"),
        (
            {"endpoints": [{"use_udp": True}]},
            "endpoints[0].use_udp",
            "use_udp belongs in the endpoint's network table",
        ),
        ({"endpoints": [{"locl": "a"}]}, "endpoints[0].locl", "did you mean listen?"),
    ],
)
def test_unknown_keys(content: dict[str, Any], key: str, hint: str | None) -> None:
    assert told(content) == [(key, "unknown key, ignored", hint)]


def test_a_key_is_told_once_however_often_it_is_there() -> None:
    content = {"endpoints": [{"x": 1}, {}, {"x": 2, "y": 1}, {"x": 3}], "x": 1}
    assert [(key, message) for key, message, _ in told(content)] == [
        ("endpoints[0].x", "unknown key, ignored (also at endpoints[2].x and 1 more)"),
        ("endpoints[2].y", "unknown key, ignored"),
        ("x", "unknown key, ignored"),
    ]


def test_keys_that_do_nothing_any_more() -> None:
    content = {
        "network": {"zero_copy": True, "fast_open": True},
        "endpoints": [{"network": {"fast_open": False}}, {"zero_copy": True}],
    }
    assert [(key, message) for key, message, _ in told(content)] == [
        ("network.zero_copy", "has no effect any more (also at endpoints[1].zero_copy)"),
        ("network.fast_open", "has no effect any more (also at endpoints[0].network.fast_open)"),
    ]


def test_keys_for_editors_and_anchors() -> None:
    made = source({"$schema": "schema.json", "x-common": {"a": 1}, "log": {}})
    assert (made.content, made.problems) == ({"log": {}}, [])
    assert [key for key, _, _ in told({"log": {"x-common": 1}})] == ["log.x-common"]


def test_other_names_of_keys() -> None:
    made = source({"endpoints": [{"local": "a:1"}], "network": {"accept_timeout": 3}})
    assert made.content == {
        "endpoints": [{"listen": "a:1"}],
        "network": {"accept_proxy_timeout": 3},
    }
    assert made.problems == []
    path, place = made.locate(("endpoints", 0, "listen"))
    assert (path, place.line) == (("endpoints", 0, "local"), 4)


def test_both_names_of_a_key_are_an_error() -> None:
    (problem,) = source({"endpoints": [{"local": "a:1", "listen": "b:1"}]}).problems
    assert (problem.key, problem.value) == ("endpoints[0].local", "a:1")
    assert problem.severity == "error"
    assert source({"endpoints": [{"local": "a:1", "listen": None}]}).problems == []


def test_null_is_as_if_the_key_were_not_there_except_for_tables_and_lists() -> None:
    content: dict[str, Any] = {
        "drain": None,
        "log": None,
        "network": {"tcp_timeout": None, "zero_copy": None},
        "endpoints": [{"listen": None, "through": None, "extra_remotes": None, "network": None}],
    }
    assert source(content).content == {
        "log": None,
        "network": {},
        "endpoints": [{"extra_remotes": None, "network": None}],
    }
    assert source({"endpoints": None}).content == {"endpoints": None}


def test_an_empty_table_of_yaml_is_no_table() -> None:
    made = tidy(read("network:\nendpoints:\n - listen: a:1\n   network:\n", "a.yaml"))
    assert made.content == {"endpoints": [{"listen": "a:1"}]}


def test_what_is_of_the_wrong_kind_is_left_for_the_models() -> None:
    content = {"log": 5, "endpoints": [5, {"network": "x"}, [1]]}
    assert source(content).content == content
    assert source({"endpoints": "x"}).content == {"endpoints": "x"}


def test_the_legacy_format_becomes_endpoints() -> None:
    made = source(
        {
            "listening_addresses": ["a"],
            "listening_ports": ["1-2"],
            "remote_addresses": ["b"],
            "remote_ports": ["3"],
        }
    )
    assert made.content == {
        "endpoints": [{"listen": "a:1", "remote": "b:3"}, {"listen": "a:2", "remote": "b:3"}]
    }
    assert [problem.severity for problem in made.problems] == ["warning"]
    path, place = made.locate(("endpoints", 1, "listen"))
    assert (path, place.line) == (("listening_addresses", 0), 3)
