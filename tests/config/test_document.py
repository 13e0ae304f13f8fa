"""Which format a text has, what is told when it is none of them, and places of keys."""

import pytest

from qanat.config.document import Document, decode, read
from qanat.config.places import Place, Places
from qanat.errors import ConfigError, Problem

__all__: list[str] = []

TOML = '[[endpoints]]\nlisten = "a:1"\nremote = "b:1"\n'
JSON = '{"endpoints": [{"listen": "a:1", "remote": "b:1"}]}'
YAML = "endpoints:\n  - listen: a:1\n    remote: b:1\n"


def refused(text: str, file: str | None) -> Problem:
    with pytest.raises(ConfigError) as caught:
        read(text, file)
    return caught.value.problems[0]


@pytest.mark.parametrize("file", [None, "/dev/stdin", "relay.conf", "REALM_CONF"])
@pytest.mark.parametrize(("text", "format"), [(TOML, "toml"), (JSON, "json"), (YAML, "yaml")])
def test_the_content_decides_where_the_name_says_nothing(
    text: str, format: str, file: str | None
) -> None:
    for written in (text, f"\n\n{text}", f"\ufeff{text}"):
        document = read(written, file)
        assert document.format == format
        assert document.content == {"endpoints": [{"listen": "a:1", "remote": "b:1"}]}


@pytest.mark.parametrize(
    ("text", "file", "format"),
    [
        (TOML, "a.toml", "toml"),
        (JSON, "a.json", "json"),
        (YAML, "a.yaml", "yaml"),
        (YAML, "a.yml", "yaml"),
        (JSON, "a.yaml", "yaml"),
        ("", "a.toml", "toml"),
        ("", "a.yaml", "yaml"),
        ("", None, "toml"),
    ],
)
def test_the_extension_decides_where_it_says_something(
    text: str, file: str | None, format: str
) -> None:
    assert read(text, file).format == format


@pytest.mark.parametrize(
    ("text", "file", "hint"),
    [(TOML, "a.json", ".toml"), (JSON, "a.toml", ".json"), (YAML, "a.toml", ".yaml")],
)
def test_a_name_that_promises_another_format_is_told(text: str, file: str, hint: str) -> None:
    problem = refused(text, file)
    assert f"the extension {hint}" in (problem.hint or "")
    assert (problem.file, problem.line) == (file, 1)


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ('[log]\nlevel = "info"\nx\n', "not TOML", 3),
        ("log:\n  level: [\n", "not YAML", 3),
        ('{"log": \n}', "not JSON", 2),
        ("nothing of the kind", "not TOML", 1),
    ],
)
def test_the_likeliest_format_complains(text: str, message: str, line: int) -> None:
    problem = refused(text, None)
    assert message in problem.message
    assert problem.line == line


def test_a_key_given_twice_is_told_as_a_key() -> None:
    assert str(refused('{"a": 1,\n"a": 2}', "a.json")) == (
        "a.json:2:1: a: is given twice, first in line 1"
    )


@pytest.mark.parametrize(("text", "kind"), [("[1]", "a list"), ("5", "a single value")])
def test_a_configuration_is_a_table(text: str, kind: str) -> None:
    assert kind in refused(text, "a.json").message


def test_text_is_utf_8() -> None:
    assert decode("\ufeffé".encode(), None) == "é"
    with pytest.raises(ConfigError) as caught:
        decode("a = 1\né = ".encode() + b"\xff", "x.toml")
    assert str(caught.value) == "x.toml:2:5: the text is not UTF-8: byte 0xff"


def test_a_place_that_is_not_written_is_that_of_the_table_around_it() -> None:
    document = read(f"\n{TOML}", "a.toml")
    assert document.place(("endpoints", 0, "listen")) == Place("a.toml", 3, 1)
    assert document.place(("endpoints", 0, "name")) == Place("a.toml", 2, 1)
    assert document.place(("workers",)) == Place("a.toml")
    problem = document.problem(("endpoints", 0, "remote"), "is far", hint="go")
    assert str(problem) == "a.toml:4:1: endpoints[0].remote: is far (go)"


def test_places_are_looked_for_once_and_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def places(text: str) -> Places:
        asked.append(text)
        return {("x",): (7, 7)}

    document = read(TOML, None)
    monkeypatch.setattr("qanat.config.formats.toml.places", places)
    assert asked == []
    assert document.place(("x",)) == document.place(("x",)) == Place(None, 7, 7)
    assert asked == [TOML]
    assert isinstance(document, Document)
