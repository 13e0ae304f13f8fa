"""Writes plain values as TOML, for which the standard library has only a reader. Pure.

Tables become headed sections and lists of tables become ``[[name]]``; keys keep their order, simple
values before tables as the format demands. ``None`` has no form in TOML and is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TypeGuard

__all__ = ["to_toml"]

_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}

Table = Mapping[str, object]


def to_toml(document: Table) -> str:
    """The document as text, ended by a newline if there is anything in it."""
    return "\n".join(_blocks("", (), document))


def _blocks(head: str, path: tuple[str, ...], table: Table) -> Iterator[str]:
    """One table as text, then every table within it."""
    block = head + "".join(
        f"{_key(key)} = {_value(value)}\n"
        for key, value in table.items()
        if value is not None and not _is_table(value) and not _is_tables(value)
    )
    if block:
        yield block
    for key, value in table.items():
        inner = (*path, key)
        name = ".".join(_key(part) for part in inner)
        if _is_table(value):
            yield from _blocks(f"[{name}]\n", inner, value)
        elif _is_tables(value):
            for entry in value:
                yield from _blocks(f"[[{name}]]\n", inner, entry)


def _is_table(value: object) -> TypeGuard[Table]:
    return isinstance(value, Mapping)


def _is_tables(value: object) -> TypeGuard[list[Table]]:
    return isinstance(value, list) and bool(value) and all(_is_table(entry) for entry in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _number(value)
        case str():
            return _text(value)
        case list() | tuple():
            return f"[{', '.join(_value(entry) for entry in value)}]"
        case Mapping():
            pairs = (f"{_key(key)} = {_value(entry)}" for key, entry in value.items())
            return f"{{ {', '.join(pairs)} }}" if value else "{}"
        case _:
            raise TypeError(f"TOML has no form for {value!r}")


def _number(value: float) -> str:
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = repr(value)
    return text if "." in text or "e" in text else f"{text}.0"


def _text(value: str) -> str:
    return f'"{"".join(_character(character) for character in value)}"'


def _character(character: str) -> str:
    escaped = _ESCAPES.get(character)
    if escaped is not None:
        return escaped
    code = ord(character)
    return f"\\u{code:04X}" if code < 0x20 or code == 0x7F else character
