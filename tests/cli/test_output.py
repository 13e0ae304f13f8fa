"""How results and complaints look to their readers."""

import io
import json
from collections.abc import Callable

import pytest

from qanat.cli import output
from qanat.errors import Problem


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Makes stdout a terminal of 80 columns. Called in the test: its capture replaces stdout."""

    def become() -> Terminal:
        stream = Terminal()
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        return stream

    return become


def test_a_table_in_a_pipe_is_tab_separated(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_table(("id", "bytes"), [("a", "1"), ("two words", "2\t3")], right=("bytes",))
    assert capsys.readouterr().out == "id\tbytes\na\t1\ntwo words\t2 3\n"


def test_a_table_on_a_terminal_is_aligned(terminal: Callable[[], Terminal]) -> None:
    stream = terminal()
    output.emit_table(("id", "bytes"), [("a", "1"), ("bb", "1000")], right=("bytes",))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert lines[1:] == ["a       1", "bb   1000"]
    assert "\x1b[1m" in lines[0]


def test_a_table_keeps_what_looks_like_markup(terminal: Callable[[], Terminal]) -> None:
    stream = terminal()
    output.emit_table(("listen",), [("[::]:5000",), ("[red]:1",)])
    assert "[::]:5000" in stream.getvalue()
    assert "[red]:1" in stream.getvalue()


def test_a_long_cell_is_folded_and_not_cut(terminal: Callable[[], Terminal]) -> None:
    stream = terminal()
    output.emit_table(("a", "b"), [("x" * 100, "y" * 100)])
    assert stream.getvalue().count("x") == 100
    assert stream.getvalue().count("y") == 100


def test_no_colour_keeps_the_table_plain(
    terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    output.emit_table(("id",), [("a",)])
    assert "\x1b[3" not in stream.getvalue()


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_json({"name": "ä", "n": [1, 2]})
    text = capsys.readouterr().out
    assert json.loads(text) == {"name": "ä", "n": [1, 2]}
    assert "ä" in text


def test_each_line_of_a_complaint_has_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    output.complain("one\ntwo", program="realm")
    assert capsys.readouterr().err == "realm: one\nrealm: two\n"


def test_warnings_say_that_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.report_problems(
        [Problem("odd", key="a", severity="warning"), Problem("wrong", key="b")], program="qanat"
    )
    assert capsys.readouterr().err == "qanat: warning: a: odd\nqanat: b: wrong\n"


def test_a_closed_stream_is_no_terminal() -> None:
    stream = io.StringIO()
    stream.close()
    assert not output.is_terminal(stream)


def test_what_would_command_a_terminal_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    output.complain("a\x1b[31mb\r", program="qanat")
    assert capsys.readouterr().err == "qanat: a\\x1b[31mb\\r\n"


def test_what_has_no_form_in_the_encoding_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    output.emit("ä")
    output.emit_json({"file": "\udcfe"})
    assert written.getvalue() == b'\\xe4\n{\n  "file": "\\udcfe"\n}\n'
