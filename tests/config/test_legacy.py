"""The legacy format: its rules, and what is told when it is wrong."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.config.legacy import MOST, convert, is_legacy
from qanat.config.places import KeyPath, dotted
from qanat.errors import Problem

__all__: list[str] = []


def tell(path: KeyPath, message: str, **more: Any) -> Problem:
    return Problem(message, key=dotted(path), **more)


def legacy(
    addresses: object = ("0.0.0.0",),
    ports: object = ("80",),
    remotes: object = ("a",),
    remote_ports: object = ("443",),
) -> dict[str, object]:
    values = (addresses, ports, remotes, remote_ports)
    names = ("listening_addresses", "listening_ports", "remote_addresses", "remote_ports")
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in zip(names, values, strict=True)
    }


def rules(content: dict[str, object]) -> list[tuple[str, str]]:
    endpoints, _, problems = convert(content, tell)
    assert [problem.severity for problem in problems] == ["warning"]
    return [(endpoint["listen"], endpoint["remote"]) for endpoint in endpoints]


def test_ranges_and_filling_up() -> None:
    assert rules(legacy(ports=("8080-8082",), remotes=("a", "b"))) == [
        ("0.0.0.0:8080", "a:443"),
        ("0.0.0.0:8081", "b:443"),
        ("0.0.0.0:8082", "a:443"),
    ]


def test_lists_that_are_too_long_are_cut() -> None:
    content = legacy(("x", "y"), ("1",), ("a", "b"), ("1-9",))
    assert rules(content) == [("x:1", "a:1")]


def test_the_last_port_there_is() -> None:
    assert rules(legacy(ports=("65535",), remote_ports=("65534-65535",))) == [
        ("0.0.0.0:65535", "a:65534")
    ]
    assert [listen for listen, _ in rules(legacy(ports=("65534-65535",)))] == [
        "0.0.0.0:65534",
        "0.0.0.0:65535",
    ]


def test_what_follows_a_second_dash_is_left_out() -> None:
    assert len(rules(legacy(ports=("10-12-99x",)))) == 3


def test_a_range_that_runs_backwards_is_empty_and_told() -> None:
    endpoints, _, problems = convert(legacy(ports=("9-5", "7")), tell)
    assert len(endpoints) == 1
    assert [(p.key, p.severity, p.hint) for p in problems[1:]] == [
        ("listening_ports[0]", "warning", "5-9")
    ]


def test_origins() -> None:
    _, written, _ = convert(legacy(ports=("1", "5-6"), remotes=("a", "b")), tell)
    assert written["endpoints", 2] == ("listening_ports", 1)
    assert written["endpoints", 2, "listen"] == ("listening_addresses", 0)
    assert written["endpoints", 1, "remote"] == ("remote_addresses", 1)


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        ({"listening_ports": []}, "listening_addresses", "is missing"),
        (legacy(ports="80"), "listening_ports", "must be a list of texts"),
        (legacy(ports=(80,)), "listening_ports[0]", "must be text"),
        (legacy(ports=("http",)), "listening_ports[0]", "is not a port"),
        (legacy(ports=("1-x",)), "listening_ports[0]", "is not a port"),
        (legacy(ports=("65536",)), "listening_ports[0]", "is not a port"),
        (legacy(remote_ports=("1", "0-65536")), "remote_ports[1]", "is not a port"),
        (legacy(remotes=()), "remote_addresses", "no entry"),
        (legacy(ports=()), "listening_ports", "no entry"),
        (legacy(ports=("1-65535", "1-9")), "listening_ports[1]", f"more than {MOST} ports"),
    ],
)
def test_refuses(content: dict[str, object], key: str, message: str) -> None:
    endpoints, _, problems = convert(content, tell)
    assert endpoints == []
    assert any(p.key == key and message in p.message for p in problems)


def test_a_number_that_should_be_text_is_told_as_text() -> None:
    _, _, problems = convert(legacy(ports=(80,)), tell)
    assert problems[-1].hint == '"80"'


def test_what_is_legacy() -> None:
    assert is_legacy({"remote_ports": []})
    assert not is_legacy({"endpoints": [], "remote_ports": []})
    assert not is_legacy({})


@given(
    st.lists(st.sampled_from(["x", "y", "[::]"]), min_size=1, max_size=4),
    st.lists(st.integers(1, 65_535), min_size=1, max_size=6),
    st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4),
    st.lists(st.integers(1, 65_535), min_size=1, max_size=6),
)
def test_there_are_as_many_rules_as_listening_ports(
    addresses: list[str], ports: list[int], remotes: list[str], remote_ports: list[int]
) -> None:
    made = rules(
        legacy(addresses, [str(port) for port in ports], remotes, [str(p) for p in remote_ports])
    )
    assert len(made) == len(ports)
    for number, (listen, remote) in enumerate(made):
        host = addresses[number] if number < len(addresses) else addresses[0]
        target = remotes[number] if number < len(remotes) else remotes[0]
        port = remote_ports[number] if number < len(remote_ports) else remote_ports[0]
        assert (listen, remote) == (f"{host}:{ports[number]}", f"{target}:{port}")
