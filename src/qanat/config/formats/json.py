"""JSON, without its two surprises: a key given twice is an error, and numbers are finite."""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn

from qanat.config.formats.syntax import DEEPEST, TOO_DEEP, SyntaxProblem, SyntaxProblems
from qanat.config.places import KeyPath, Lines, Places, dotted

__all__ = ["parse", "places"]

# A text that json.loads accepts consists of these and blanks.
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
_MESSAGES: Final = {
    "Expecting value": "a value is missing",
    "Expecting property name enclosed in double quotes": "a key in double quotes is missing",
    "Expecting ':' delimiter": "a colon is missing after the key",
    "Expecting ',' delimiter": "a comma or the end of the table or list is missing",
    "Extra data": "there is something after the end",
    "Unterminated string starting at": "a text that begins here does not end",
    "Invalid control character at": "a line break or another control character in a text",
    "Illegal trailing comma before end of object": "a comma before the end of a table",
    "Illegal trailing comma before end of array": "a comma before the end of a list",
}


class _Duplicate(Exception):
    """A key is twice in one table; where, the parser does not say."""


class _NotFinite(Exception):
    pass


def parse(text: str) -> object:
    try:
        return _loads(text)
    except json.JSONDecodeError as error:
        raise SyntaxProblems([_problem(text, error)]) from None
    except _NotFinite as error:
        raise SyntaxProblems([_constant(text, str(error))]) from None
    except RecursionError:
        raise SyntaxProblems([TOO_DEEP]) from None
    except ValueError:
        # Python refuses to read whole numbers of more than 4300 digits.
        raise SyntaxProblems([SyntaxProblem("a number with too many digits")]) from None


def places(text: str) -> Places:
    return _Scan(text).places


def _loads(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_table, parse_constant=_refuse_constant)
    except _Duplicate:
        # The rest has not been looked at yet, and only a text that is JSON can be scanned.
        json.loads(text, parse_constant=_refuse_constant)
        raise SyntaxProblems(_Scan(text).duplicates) from None


def _table(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise _Duplicate
    return table


def _refuse_constant(name: str) -> NoReturn:
    raise _NotFinite(name)


def _constant(text: str, name: str) -> SyntaxProblem:
    lines = Lines(text)
    for token in _TOKEN.finditer(text):
        if token.group() == name:
            return SyntaxProblem(f"{name} is not a number of JSON", *lines.at(token.start()))
    return SyntaxProblem(f"{name} is not a number of JSON")


def _problem(text: str, error: json.JSONDecodeError) -> SyntaxProblem:
    message = _MESSAGES.get(error.msg, error.msg[:1].lower() + error.msg[1:])
    return SyntaxProblem(message, error.lineno, error.colno, hint=_hint(text, error.pos))


def _hint(text: str, at: int) -> str | None:
    found = text[at : at + 2]
    if not text.strip():
        return "the text is empty"
    if found.startswith(("#", "//", "/*")) or found in ("//", "/*"):
        return "JSON has no comments"
    if found.startswith("'"):
        return "texts are in double quotes"
    if found[:1] in ("}", "]") and text[:at].rstrip().endswith(","):
        return "take the comma before it out"
    if found.startswith(",") and re.match(r",\s*[}\]]", text[at:]):
        return "take the comma out"
    if found == "" or not text[at:].strip():
        return "the text ends too early"
    return None


class _Scan:
    """Where the keys are in a text that is JSON. A loop, so that depth is no matter."""

    def __init__(self, text: str) -> None:
        self.places: Places = {}
        self.duplicates: list[SyntaxProblem] = []
        lines = Lines(text)
        path: list[str | int] = []
        # For each open table its keys, for each open list None; and whether a key is due.
        open_: list[dict[str, tuple[int, int]] | None] = []
        key_due = False
        for token in _TOKEN.finditer(text):
            word = token.group()
            if len(open_) > DEEPEST:
                # No key that is known is as deep, and paths grow with the depth.
                self.duplicates = self.duplicates or [TOO_DEEP]
                return
            if word in "}]":
                open_.pop()
                path.pop()
                key_due = False
            elif word == ",":
                if open_[-1] is None:
                    path[-1] = int(path[-1]) + 1
                else:
                    key_due = True
            elif word == ":":
                key_due = False
            elif key_due and open_ and open_[-1] is not None:
                self._key(json.loads(word), lines.at(token.start()), path, open_[-1])
            else:
                if open_ and open_[-1] is None:
                    self.places[tuple(path)] = lines.at(token.start())
                if word == "{":
                    open_.append({})
                    path.append("")
                    key_due = True
                elif word == "[":
                    open_.append(None)
                    path.append(0)

    def _key(
        self,
        key: str,
        at: tuple[int, int],
        path: list[str | int],
        seen: dict[str, tuple[int, int]],
    ) -> None:
        path[-1] = key
        where: KeyPath = tuple(path)
        if key in seen:
            message = f"is given twice, first in line {seen[key][0]}"
            self.duplicates.append(SyntaxProblem(message, *at, key=dotted(where)))
            return
        seen[key] = at
        self.places[where] = at
