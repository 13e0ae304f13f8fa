"""Paths as they are written, offsets as lines and columns, and text that any terminal can show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.config.places import KeyPath, Lines, dotted, printable

__all__: list[str] = []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("log",), "log"),
        (("endpoints", 2, "network", "tcp_timeout"), "endpoints[2].network.tcp_timeout"),
        (("a b", "c.d", ""), '"a b"."c.d".""'),
        (("x\ny",), '"x\\ny"'),
        (("x-y_Z9",), "x-y_Z9"),
    ],
)
def test_dotted(path: KeyPath, text: str) -> None:
    assert dotted(path) == text


@given(st.text(alphabet="ab\n", max_size=50), st.integers(0, 50))
def test_lines(text: str, offset: int) -> None:
    offset = min(offset, len(text))
    before = text[:offset].split("\n")
    assert Lines(text).at(offset) == (len(before), len(before[-1]) + 1)


@given(st.text(st.characters()))
def test_printable(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    if text.isprintable():
        assert shown == text


def test_printable_escapes_what_terminals_would_obey() -> None:
    assert printable("a\x1b[31m\ud800\n") == "a\\x1b[31m\\ud800\\n"
