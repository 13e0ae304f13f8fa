"""YAML: words and numbers as in version 1.2, what is refused and where, and the places of keys."""

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qanat.config.formats.syntax import SyntaxProblem, SyntaxProblems
from qanat.config.formats.yaml import parse, places
from tests.config.formats.trees import documents, paths

__all__: list[str] = []


def refused(text: str) -> SyntaxProblem:
    with pytest.raises(SyntaxProblems) as caught:
        parse(text)
    return caught.value.problems[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("on", "on"),
        ("yes", "yes"),
        ("no", "no"),
        ("true", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("1:30", "1:30"),
        ("0:5000", "0:5000"),
        ("0.0.0.0:5000", "0.0.0.0:5000"),
        ("2001-01-01", "2001-01-01"),
        ("12", 12),
        ("-3", -3),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("~", None),
        ("null", None),
        ("", None),
        ('"12"', "12"),
        ("'true'", "true"),
        ("!!str 12", "12"),
        ("!!int 12", 12),
        ("!!float 12", 12.0),
        ("!!null ~", None),
        ("! 12", "12"),
    ],
)
def test_a_scalar_is_what_it_looks_like(text: str, value: object) -> None:
    document: Any = parse(f"a: {text}")
    assert document == {"a": value}
    assert type(document["a"]) is type(value)


def test_anchors_and_merges() -> None:
    text = """\
common: &common { tcp_timeout: 3, use_udp: true }
more: &more { linger: 1, use_udp: false }
endpoints:
  - network: *common
  - network: { <<: *common, tcp_timeout: 9 }
  - network:
      <<: [*more, *common]
      "<<": quoted
"""
    document: Any = parse(text)
    assert [entry["network"] for entry in document["endpoints"]] == [
        {"tcp_timeout": 3, "use_udp": True},
        {"tcp_timeout": 9, "use_udp": True},
        {"tcp_timeout": 3, "use_udp": False, "linger": 1, "<<": "quoted"},
    ]


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: 1\nb: 2\na: 3", 3, 1, "is given twice, first in line 1"),
        ("a: [1, 2\n", 2, 1, "did not find expected"),
        ("a: b: c", 1, 5, "mapping values are not allowed"),
        ("a:\n\t- b", 2, 1, "cannot start any token"),
        ("a: *b", 1, 4, "names nothing"),
        ("a: &a [*a]", 1, 8, "inside of what it names"),
        ("a: 1\n---\nb: 2", 2, 1, "a second document"),
        ("a: !!python/object:os.system x", 1, 4, "not a tag that is known"),
        ("a: !!int x", 1, 4, "no value for the tag !!int"),
        ("a: !!int true", 1, 4, "no value for the tag !!int"),
        ("a: !!set {b}", 1, 4, "not a tag that is known"),
        ("? [a]\n: b", 1, 3, "a key must be a text"),
        ("a: &x b\n*x : c", 2, 1, "a key must be a text"),
        ("a: {<<: 5}", 1, 5, "<< needs a table"),
        ("a: b\x00c", 1, 5, "a character that YAML does not allow"),
        ("a: b\ud800c", 1, 5, ""),
    ],
)
def test_says_where_a_text_is_wrong(text: str, line: int, column: int, message: str) -> None:
    problem = refused(text)
    assert message in problem.message
    if message:
        assert (problem.line, problem.column) == (line, column)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "- " * 100_000,
        "{a: " * 100_000,
        "\n".join(" " * depth + "a:" for depth in range(2000)),
    ],
)
def test_no_text_is_too_much(text: str) -> None:
    refused(text)


@pytest.mark.timeout(10)
def test_aliases_of_aliases_do_not_grow() -> None:
    lists = ["a0: &a0 [x, x]"]
    lists += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert parse("\n".join(lists))
    tables = ["a0: &a0 {x: 1}"]
    tables += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 30)]
    document: Any = parse("\n".join(tables))
    assert document["a29"] == {"x": 1}


def test_without_the_fast_parser_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert parse("a: {b: [off, 1]}") == {"a": {"b": ["off", 1]}}
    assert refused("a: [").line == 1
    assert refused("a: \x00").line == 1


def test_places() -> None:
    text = (
        "log:\n  level: info\nendpoints:\n  - listen: a\n    network: {use_udp: true}\n  - &x 5\n"
    )
    assert places(text) == {
        ("log",): (1, 1),
        ("log", "level"): (2, 3),
        ("endpoints",): (3, 1),
        ("endpoints", 0): (4, 5),
        ("endpoints", 0, "listen"): (4, 5),
        ("endpoints", 0, "network"): (5, 5),
        ("endpoints", 0, "network", "use_udp"): (5, 15),
        ("endpoints", 1): (6, 5),
    }


@given(documents(), st.booleans())
def test_reads_what_others_write(document: dict[str, Any], flow: bool) -> None:
    # This writer follows the older rules, by which fewer texts need their quotes.
    text = yaml.safe_dump(document, default_flow_style=flow, default_style='"', allow_unicode=True)
    assert parse(text) == document
    # Equal lists are written as aliases, which have no places of their own.
    if "*id" not in text:
        assert set(places(text)) == set(paths(document))


@given(st.one_of(st.text(), st.text(alphabet="ab:-[]{}&*!<?|>'\"\n \t#,", max_size=40)))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parse(text)
    except SyntaxProblems as error:
        assert error.problems
    else:
        places(text)
