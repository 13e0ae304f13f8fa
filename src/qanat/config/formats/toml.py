"""TOML: the standard library's reader, and a scanner that knows where the keys are."""

from __future__ import annotations

import contextlib
import re
import tomllib
from typing import Final

from qanat.config.formats.syntax import TOO_DEEP, SyntaxProblem, SyntaxProblems
from qanat.config.places import KeyPath, Lines, Places

__all__ = ["parse", "places"]

_POSITION: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_BARE_VALUE: Final = re.compile(r"""\s*[\w."'-]+\s*=\s*([^\s"'\[{#][^#]*?)\s*(?:\#.*)?""")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
# A date and its time may be divided by one blank.
_PLAIN: Final = re.compile(r"\d{4}-\d\d-\d\d \d[^\s,\]}#]*|[^\s,\]}#]+")
# Longest first: three quotes also begin with one.
_STRINGS: Final = (
    re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}', re.DOTALL),
    re.compile(r"'''(?:[^']|'(?!''))*'{3,5}", re.DOTALL),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)


def parse(text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SyntaxProblems([_problem(text, str(error))]) from None
    except RecursionError:
        raise SyntaxProblems([TOO_DEEP]) from None
    except ValueError:
        # Dates that are none, and whole numbers of more than 4300 digits.
        raise SyntaxProblems([SyntaxProblem("a date or a number that can't be")]) from None


def places(text: str) -> Places:
    scan = _Scan(text)
    # What is known so far is better than nothing: the message itself does not depend on it.
    with contextlib.suppress(RecursionError, _Lost):
        scan.document()
    return scan.places


def _problem(text: str, message: str) -> SyntaxProblem:
    found = _POSITION.search(message)
    if found is None:
        return SyntaxProblem(_lower(message))
    if found[1] is None:
        line, column = Lines(text).at(len(text))
    else:
        line, column = int(found[1]), int(found[2])
    message = _lower(message[: found.start()])
    return SyntaxProblem(message, line, column, hint=_hint(text, line, message))


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _hint(text: str, line: int, message: str) -> str | None:
    if "overwrite" in message or "twice" in message or "already" in message:
        return "the key or table has been given before"
    lines = text.split("\n")
    written = lines[line - 1] if line <= len(lines) else ""
    bare = _BARE_VALUE.fullmatch(written.rstrip("\r")) if len(written) < 500 else None
    if bare is not None and not bare[1].isdecimal():
        if bare[1] in ("True", "False"):
            return bare[1].lower()
        return f'texts are in quotes: "{bare[1]}"'
    if re.match(r"\s*[\w-]+\s*:", written):
        return "TOML has an equals sign between key and value"
    return None


class _Lost(Exception):
    """The text is not what the scanner expected. The reader has accepted it, so this is our fault;
    a test holds both against each other."""


class _Scan:
    def __init__(self, text: str) -> None:
        # As the standard library's reader has it; lines stay lines.
        self.text = text.replace("\r\n", "\n")
        self.places: Places = {}
        self._at = 0
        self._lines = Lines(self.text)
        # How many tables each list of tables has.
        self._lists: dict[KeyPath, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        while True:
            self._match(_BLANK)
            if self._at >= len(self.text):
                return
            if self.text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> KeyPath:
        start = self._at
        many = self.text.startswith("[[", start)
        self._at += 2 if many else 1
        names = [name for name, _ in self._keys()]
        self._expect("]]" if many else "]")
        path: KeyPath = ()
        for number, name in enumerate(names):
            path = (*path, name)
            if many and number == len(names) - 1:
                self.places.setdefault(path, self._lines.at(start))
                count = self._lists[path] = self._lists.get(path, 0) + 1
                path = (*path, count - 1)
            elif path in self._lists:
                path = (*path, self._lists[path] - 1)
        self.places.setdefault(path, self._lines.at(start))
        return path

    def _pair(self, table: KeyPath) -> None:
        path = table
        for name, offset in self._keys():
            path = (*path, name)
            self.places.setdefault(path, self._lines.at(offset))
        self._expect("=")
        self._match(_SPACE)
        self._value(path)

    def _keys(self) -> list[tuple[str, int]]:
        keys = []
        while True:
            self._match(_SPACE)
            offset = self._at
            if self.text[offset : offset + 1] in ('"', "'"):
                keys.append((self._string(), offset))
            else:
                keys.append((self._match(_BARE_KEY), offset))
            self._match(_SPACE)
            if not self.text.startswith(".", self._at):
                return keys
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        match self.text[self._at : self._at + 1]:
            case '"' | "'":
                self._match(*_STRINGS)
            case "[":
                self._list(path)
            case "{":
                self._inline(path)
            case _:
                self._match(_PLAIN)

    def _list(self, path: KeyPath) -> None:
        self._at += 1
        number = 0
        while True:
            self._match(_BLANK)
            if self.text.startswith("]", self._at):
                self._at += 1
                return
            self.places[(*path, number)] = self._lines.at(self._at)
            self._value((*path, number))
            number += 1
            self._match(_BLANK)
            if self.text.startswith(",", self._at):
                self._at += 1

    def _inline(self, path: KeyPath) -> None:
        self._at += 1
        while True:
            self._match(_BLANK)
            if self.text.startswith("}", self._at):
                self._at += 1
                return
            self._pair(path)
            self._match(_BLANK)
            if self.text.startswith(",", self._at):
                self._at += 1

    def _string(self) -> str:
        return str(tomllib.loads(f"x={self._match(*_STRINGS)}")["x"])

    def _expect(self, text: str) -> None:
        if not self.text.startswith(text, self._at):
            raise _Lost
        self._at += len(text)

    def _match(self, *patterns: re.Pattern[str]) -> str:
        for pattern in patterns:
            found = pattern.match(self.text, self._at)
            if found is not None:
                self._at = found.end()
                return found.group()
        raise _Lost
