"""Every kind of mistake in words that say what would be right, at the place where it is."""

from typing import Any

import pytest
from pydantic import ValidationError

from qanat.config.explain import explain, nearest, simple, words
from qanat.config.models import Config
from qanat.config.places import KeyPath, Place
from qanat.errors import ABSENT, Problem

__all__: list[str] = []


def problems(content: dict[str, Any]) -> list[Problem]:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(content)
    return explain(caught.value, Config)


def only(content: dict[str, Any]) -> str:
    (problem,) = problems(content)
    return str(problem)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"log": {"level": "Info"}},
            (
                'log.level = "Info": must be one of off, error, warn, info, debug or trace '
                "(did you mean info?)"
            ),
        ),
        (
            {"log": {"level": 5}},
            "log.level = 5: must be one of off, error, warn, info, debug or trace",
        ),
        (
            {"dns": {"mode": "ipv4-only"}},
            (
                'dns.mode = "ipv4-only": must be one of ipv4_only, ipv6_only, ipv4_and_ipv6, '
                "ipv4_then_ipv6 or ipv6_then_ipv4 (did you mean ipv4_only?)"
            ),
        ),
        (
            {"network": {"use_udp": "true"}},
            'network.use_udp = "true": must be true or false (true, without quotes)',
        ),
        ({"network": {"use_udp": 0}}, "network.use_udp = 0: must be true or false (false)"),
        (
            {"network": {"use_udp": "yes"}},
            'network.use_udp = "yes": must be true or false (true, without quotes)',
        ),
        ({"network": {"use_udp": []}}, "network.use_udp: must be true or false"),
        (
            {"network": {"tcp_keepalive": 99_999}},
            "network.tcp_keepalive = 99999: must be a whole number from 0 to 32767",
        ),
        (
            {"network": {"tcp_keepalive": "15"}},
            (
                'network.tcp_keepalive = "15": must be a whole number from 0 to 32767 '
                "(15, without quotes)"
            ),
        ),
        (
            {"network": {"tcp_timeout": 5.0}},
            "network.tcp_timeout = 5.0: must be a whole number from 0 to 4294967295 (5)",
        ),
        (
            {"network": {"tcp_timeout": -1}},
            "network.tcp_timeout = -1: must be a whole number from 0 to 4294967295",
        ),
        ({"network": {"send_proxy_version": 3}}, "network.send_proxy_version = 3: must be 1 or 2"),
        (
            {"network": {"linger": "5"}},
            'network.linger = "5": must be a number from 0 to 4294967295 (5, without quotes)',
        ),
        (
            {"network": {"linger": float("nan")}},
            "network.linger = nan: must be a number from 0 to 4294967295",
        ),
        (
            {"network": {"linger": -1}},
            "network.linger = -1: must be a number from 0 to 4294967295",
        ),
        ({"pipe_page": 0}, "pipe_page = 0: must be a whole number from 1 to 524288"),
        ({"network": 5}, "network = 5: must be a table"),
        ({"network": [1]}, "network: must be a table, not a list"),
        ({"network": None}, "network = null: must be a table, not null"),
        ({"endpoints": {"a": 1}}, "endpoints: must be a list, not a table"),
        ({"endpoints": [5]}, "endpoints[0] = 5: must be a table"),
        (
            {"dns": {"nameservers": "192.0.2.1"}},
            'dns.nameservers = "192.0.2.1": must be a list (["192.0.2.1"])',
        ),
        (
            {"dns": {"nameservers": []}},
            "dns.nameservers: must not be empty (take the key out to use the default)",
        ),
        ({"dns": {"nameservers": [5]}}, "dns.nameservers[0] = 5: must be text (with quotes)"),
        (
            {"dns": {"min_ttl": 9, "max_ttl": 5}},
            "dns.min_ttl = 9: must not be above max_ttl (5)",
        ),
        ({"log": {"output": ""}}, 'log.output = "": must not be empty'),
        ({"log": {"output": "\ud800"}}, 'log.output = "\\ud800": is not valid text'),
        ({"control": 5}, "control = 5: must be the path of a socket, true or false"),
        ({"worker": 5}, "worker: unknown key (did you mean workers?)"),
        (
            {"endpoints": [{"listen": ":1"}]},
            'endpoints[0].remote: is missing (remote = "example.com:443")',
        ),
        (
            {"endpoints": [{"listen": 5000, "remote": "a:1"}]},
            'endpoints[0].listen = 5000: must be text (as "0.0.0.0:5000")',
        ),
        (
            {"endpoints": [{"listen": True, "remote": "a:1"}]},
            'endpoints[0].listen = true: must be text (as "0.0.0.0:5000")',
        ),
        (
            {"endpoints": [{"listen": ":1", "remote": "a:1", "name": "x" * 101}]},
            f'endpoints[0].name = "{"x" * 76}...: must have at most 100 characters',
        ),
        (
            {"endpoints": [{"listen": ":1-3", "remote": "a:1-2"}]},
            (
                'endpoints[0].remote = "a:1-2": 2 ports for the 3 of listen '
                "(one port, or as many as listen has)"
            ),
        ),
        (
            {"endpoints": [{"listen": "x\n:1", "remote": "a:1"}]},
            (
                'endpoints[0].listen = "x\\n:1": "x\\n" is not a host name '
                "(letters, digits, - and _ in parts of at most 63 characters, joined by dots)"
            ),
        ),
        (
            {"endpoints": [{"listen": ":1", "remote": "a:1", "failover": {"x": [1]}}]},
            "endpoints[0].failover: must be true or false",
        ),
    ],
)
def test_words(content: dict[str, Any], expected: str) -> None:
    assert only(content) == expected


def test_numbers_that_nobody_can_write_down_are_not_shown() -> None:
    (problem,) = problems({"workers": 10**5000})
    assert problem.value is ABSENT
    assert str(problem) == "workers: must be a whole number from 0 to 1024"


def test_problems_stand_where_they_are_said_to() -> None:
    asked: list[KeyPath] = []

    def locate(path: KeyPath) -> tuple[KeyPath, Place]:
        asked.append(path)
        return ("elsewhere", 7), Place("x.toml", 3, 4)

    with pytest.raises(ValidationError) as caught:
        Config.model_validate({"dns": {"min_ttl": 9, "max_ttl": 5}, "workers": "x"})
    found = explain(caught.value, Config, locate)
    assert asked == [("dns", "min_ttl"), ("workers",)]
    assert {str(problem).partition(" = ")[0] for problem in found} == {"x.toml:3:4: elsewhere[7]"}


def test_all_mistakes_are_told() -> None:
    found = problems(
        {"log": {"level": "x"}, "drain": -1, "endpoints": [{"listen": "x"}, {"remote": "x"}]}
    )
    assert [problem.key for problem in found] == [
        "log.level",
        "drain",
        "endpoints[0].listen",
        "endpoints[0].remote",
        "endpoints[1].listen",
        "endpoints[1].remote",
    ]


def test_words_and_nearest() -> None:
    assert (words(["a"]), words(["a", "b"]), words(["a", "b", "c"])) == ("a", "a or b", "a, b or c")
    assert nearest("TCP-Timeout", ["tcp_timeout", "udp_timeout"]) == "tcp_timeout"
    assert nearest("zzz", ["tcp_timeout"]) is None
    assert nearest("x" * 100_000, ["tcp_timeout"]) is None


@pytest.mark.parametrize("value", [None, True, 5, 2.5, "a"])
def test_simple_values_are_shown(value: object) -> None:
    assert simple(value) is value


@pytest.mark.parametrize(
    "value", [[1], {"a": 1}, object(), 10**5000], ids=lambda v: type(v).__name__
)
def test_others_are_not(value: object) -> None:
    assert simple(value) is ABSENT
