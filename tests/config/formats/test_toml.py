"""TOML: what is refused, where, and that every key of a text that parses has its place."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.cli.toml_text import to_toml
from qanat.config.formats.syntax import SyntaxProblem, SyntaxProblems
from qanat.config.formats.toml import parse, places
from tests.config.formats.trees import documents, paths, written_at

__all__: list[str] = []


def refused(text: str) -> SyntaxProblem:
    with pytest.raises(SyntaxProblems) as caught:
        parse(text)
    return caught.value.problems[0]


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("[log]\nlevel = info\n", 2, 'texts are in quotes: "info"'),
        ("a = 1\nlisten = 0.0.0.0:5000 # here", 2, 'texts are in quotes: "0.0.0.0:5000"'),
        ("use_udp = True", 1, "true"),
        ("listen: 5", 1, "equals sign"),
        ("a = 1\na = 2", 2, "given before"),
        ("[log]\n[dns]\n[log]", 3, "given before"),
        ("[log", 1, ""),
        ('a = "x', 1, ""),
        ("[[endpoints]]\nlisten = ", 2, ""),
    ],
)
def test_says_where_a_text_is_wrong(text: str, line: int, hint: str) -> None:
    problem = refused(text)
    assert problem.line == line
    assert problem.column is not None
    assert hint in (problem.hint or "")
    assert "(at " not in problem.message


@pytest.mark.parametrize(
    "text", [f"a = {'[' * 100_000}", f"a = {'9' * 5000}", "a = 2020-13-99", "a = {b.c.d"]
)
def test_no_text_is_too_much(text: str) -> None:
    refused(text)


TEXT = '''\
# A comment with a = 1 and [a table]
drain = 3
log.level = "a # [b] = c"
"quoted.key" . 'x' = """
not = "a key"
[nor a table]
\\""" still """
lit = \'\'\'a = 1
[x]\'\'\'\'
when = 1979-05-27 07:32:00Z

[dns]  # the second table
nameservers = [
  "192.0.2.1", # one
  "192.0.2.2",
]
[[endpoints]]
listen = "a"
network = { use_udp = true, deep.er = [ { x = 1 }, { y = 2 } ] }
[endpoints.hook]
z = 1
[[endpoints]]
[endpoints.network]
tcp_timeout = 1
[[endpoints.route]]
to = "b"
[[endpoints.route]]
to = "c"
'''


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("drain",), (2, 1)),
        (("log",), (3, 1)),
        (("log", "level"), (3, 5)),
        (("quoted.key",), (4, 1)),
        (("quoted.key", "x"), (4, 16)),
        (("lit",), (8, 1)),
        (("when",), (10, 1)),
        (("dns",), (12, 1)),
        (("dns", "nameservers"), (13, 1)),
        (("dns", "nameservers", 1), (15, 3)),
        (("endpoints",), (17, 1)),
        (("endpoints", 0), (17, 1)),
        (("endpoints", 0, "listen"), (18, 1)),
        (("endpoints", 0, "network"), (19, 1)),
        (("endpoints", 0, "network", "use_udp"), (19, 13)),
        (("endpoints", 0, "network", "deep", "er"), (19, 34)),
        (("endpoints", 0, "network", "deep", "er", 1, "y"), (19, 54)),
        (("endpoints", 0, "hook", "z"), (21, 1)),
        (("endpoints", 1), (22, 1)),
        (("endpoints", 1, "network"), (23, 1)),
        (("endpoints", 1, "network", "tcp_timeout"), (24, 1)),
        (("endpoints", 1, "route", 1, "to"), (28, 1)),
    ],
)
def test_places(path: tuple[str | int, ...], place: tuple[int, int]) -> None:
    assert places(TEXT)[path] == place
    assert places(TEXT.replace("\n", "\r\n"))[path] == place


def test_places_are_those_of_what_the_reader_read() -> None:
    assert set(places(TEXT)) == set(paths(tomllib.loads(TEXT)))


@given(documents())
def test_each_key_has_its_place(document: dict[str, Any]) -> None:
    text = to_toml(document)
    found = places(text)
    for path in paths(parse(text)):
        assert path in found, text
        if isinstance(path[-1], str):
            assert written_at(text, found[path])


@given(st.one_of(st.text(), st.text(alphabet="a=[]{}\"'.#,\n\\ 1"), st.text(alphabet="[]\n=a1")))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        document = parse(text)
    except SyntaxProblems as error:
        assert error.problems
    else:
        assert set(places(text)) == set(paths(document))
