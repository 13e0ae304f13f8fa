"""One configuration text, read: what it says, and where it says it.

Chooses the format (by the file's extension if that says something, else by the content) and turns
what the readers complain of into problems with file, line and column. Opens no file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import PurePath
from types import ModuleType
from typing import Any, Final, Literal, TypeAlias

from qanat.config.formats.syntax import SyntaxProblem, SyntaxProblems
from qanat.config.places import KeyPath, Lines, Place, Places, dotted, printable
from qanat.errors import ConfigError, Problem

__all__ = ["EXTENSIONS", "Document", "Format", "decode", "read"]

Format: TypeAlias = Literal["toml", "json", "yaml"]

EXTENSIONS: Final[dict[str, Format]] = {
    ".toml": "toml",
    ".json": "json",
    ".yaml": "yaml",
    ".yml": "yaml",
}

_LIKE_TOML: Final = re.compile(r"""^\s*(?:\[|[\w."'-]+\s*=)""", re.MULTILINE)
_LIKE_YAML: Final = re.compile(r"""^\s*(?:- |["'\w-]+\s*:(?:\s|$))""", re.MULTILINE)


@dataclass(slots=True)
class Document:
    """A text that was read. The places are looked for when the first one is asked for."""

    file: str | None
    format: Format
    text: str
    content: dict[str, Any]
    _places: Places | None = field(default=None, repr=False)

    def place(self, path: KeyPath) -> Place:
        """Where a key stands, or the nearest table around it if it stands nowhere."""
        if self._places is None:
            self._places = _reader(self.format).places(self.text)
        while path:
            found = self._places.get(path)
            if found is not None:
                return Place(self.file, *found)
            path = path[:-1]
        return Place(self.file)

    def problem(self, path: KeyPath, message: str, **more: Any) -> Problem:
        """A problem at a key of this text."""
        place = self.place(path)
        return Problem(
            message,
            file=place.file,
            line=place.line,
            column=place.column,
            key=dotted(path) or None,
            **more,
        )


def decode(raw: bytes, file: str | None) -> str:
    """Raises ConfigError when the bytes are not text in UTF-8."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = Lines(raw[: error.start].decode("utf-8", "replace")).at(
            len(raw[: error.start].decode("utf-8", "replace"))
        )
        byte = raw[error.start]
        problem = Problem(
            f"the text is not UTF-8: byte 0x{byte:02x}", file=file, line=line, column=column
        )
        raise ConfigError([problem]) from None


def read(text: str, file: str | None) -> Document:
    """Raises ConfigError with what is wrong with the text's form."""
    text = text.removeprefix("\ufeff")
    known = EXTENSIONS.get(PurePath(file).suffix) if file is not None else None
    format = known or _format_of(text)
    try:
        content = _reader(format).parse(text)
    except SyntaxProblems as error:
        hint = None if known is None else _other_format(text, known)
        raise ConfigError([_told(file, format, part, hint) for part in error.problems]) from None
    if content is None and format == "yaml":
        content = {}
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else "a single value"
        message = f"a configuration is a table, not {kind}"
        raise ConfigError([Problem(message, file=file, line=1, column=1)])
    return Document(file, format, text, content)


def _reader(format: Format) -> ModuleType:
    # A program that starts pays for one reader, not for all.
    return import_module(f"qanat.config.formats.{format}")


def _format_of(text: str) -> Format:
    """Of a text whose name says nothing."""
    if text.lstrip().startswith("{"):
        return "json"
    for format in _candidates(text):
        try:
            content = _reader(format).parse(text)
        except SyntaxProblems:
            continue
        if isinstance(content, dict):
            return format
    return _candidates(text)[0]


def _candidates(text: str) -> tuple[Format, Format]:
    """The likelier one first: it is the one whose complaint is shown if none of them accepts."""
    toml, yaml = _LIKE_TOML.search(text), _LIKE_YAML.search(text)
    if yaml is not None and (toml is None or yaml.start() < toml.start()):
        return "yaml", "toml"
    return "toml", "yaml"


def _other_format(text: str, known: Format) -> str | None:
    """A name that promises one format for a text in another is a mistake of its own."""
    formats: tuple[Format, ...] = ("json", "toml", "yaml")
    for format in formats:
        if format == known:
            continue
        try:
            content = _reader(format).parse(text)
        except SyntaxProblems:
            continue
        if isinstance(content, dict) and content:
            return f"the text is {format.upper()}: give the file the extension .{format}"
    return None


def _told(file: str | None, format: Format, part: SyntaxProblem, hint: str | None) -> Problem:
    prefix = "" if part.key is not None else f"not {format.upper()}: "
    return Problem(
        printable(f"{prefix}{part.message}"),
        file=file,
        line=part.line,
        column=part.column,
        key=part.key,
        hint=hint or (None if part.hint is None else printable(part.hint)),
    )
