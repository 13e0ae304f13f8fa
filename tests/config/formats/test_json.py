"""JSON: what is refused, where, and that every key of a text that parses has its place."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.config.formats.json import parse, places
from qanat.config.formats.syntax import SyntaxProblem, SyntaxProblems
from tests.config.formats.trees import documents, paths, written_at

__all__: list[str] = []


def refused(text: str) -> SyntaxProblem:
    with pytest.raises(SyntaxProblems) as caught:
        parse(text)
    return caught.value.problems[0]


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"),
    [
        ('{"a": 1,\n "b" 2}', 2, 6, "a colon is missing", None),
        ('{"a": 1\n "b": 2}', 2, 2, "a comma or the end", None),
        # Python 3.13 points at the comma, older ones at what follows.
        ('{\n  "a": 1,\n}', None, None, "", "take the comma"),
        ('{"a": [1, 2\n', 2, 1, "a comma or the end", "ends too early"),
        ('{"a": // why\n 1}', 1, 7, "a value is missing", "JSON has no comments"),
        ("{'a': 1}", 1, 2, "a key in double quotes", "double quotes"),
        ('{"a": "b\n"}', 1, 9, "a line break", None),
        ('{"a": 1, "a": 2} x', 1, 18, "something after the end", None),
        ('{"a": 1} x', 1, 10, "something after the end", None),
        ("", 1, 1, "a value is missing", "the text is empty"),
        ('{"a": NaN}', 1, 7, "NaN is not a number", None),
        ('{"x": "NaN",\n "a": -Infinity}', 2, 7, "-Infinity is not a number", None),
    ],
)
def test_says_where_a_text_is_wrong(
    text: str, line: int | None, column: int | None, message: str, hint: str | None
) -> None:
    problem = refused(text)
    assert message in problem.message
    if line is not None:
        assert (problem.line, problem.column) == (line, column)
    assert (hint or "") in (problem.hint or "")


def test_every_key_given_twice_is_told() -> None:
    text = '{"a": 1,\n "b": {"c": 1, "c": 2},\n "a": 3, "l": [{"x": 1, "x": 1}]}'
    with pytest.raises(SyntaxProblems) as caught:
        parse(text)
    assert [(p.key, p.line, p.column) for p in caught.value.problems] == [
        ("b.c", 2, 16),
        ("a", 3, 2),
        ("l[0].x", 3, 25),
    ]
    assert "first in line 1" in caught.value.problems[1].message


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, f"[{'9' * 5000}]"])
def test_no_text_is_too_much(text: str) -> None:
    refused(text)


def test_a_key_given_twice_in_the_deep_is_refused_too() -> None:
    refused("[" * 150 + '{"a":1,"a":2}' + "]" * 150)


@given(documents())
def test_each_key_has_its_place(document: dict[str, Any]) -> None:
    for indent in (None, 2):
        text = json.dumps(document, indent=indent)
        found = places(text)
        for path in paths(document):
            if isinstance(path[-1], str):
                assert written_at(text, found[path]).startswith(json.dumps(path[-1]))
            else:
                assert path in found


@given(st.text())
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parse(text)
    except SyntaxProblems as error:
        assert error.problems
