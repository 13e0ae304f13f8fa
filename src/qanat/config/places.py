"""Where in a text a key stands, and how its path is written. Pure; knows no format."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["KeyPath", "Lines", "Place", "Places", "dotted", "printable"]

KeyPath: TypeAlias = tuple[str | int, ...]
"""From the root of a document: names of tables and positions in lists."""

Places: TypeAlias = dict[KeyPath, tuple[int, int]]
"""Line and column, from 1, of keys and of entries of lists."""

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Place:
    """A file, a line and a column, each as far as it is known."""

    file: str | None = None
    line: int | None = None
    column: int | None = None


class Lines:
    """From offsets in a text to lines and columns."""

    def __init__(self, text: str) -> None:
        self._starts = [0]
        at = text.find("\n")
        while at >= 0:
            self._starts.append(at + 1)
            at = text.find("\n", at + 1)

    def at(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


def dotted(path: KeyPath) -> str:
    """``endpoints[2].network.tcp_timeout``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE.fullmatch(part) else f'"{printable(part)}"'
            text += f".{name}" if text else name
    return text


def printable(text: str) -> str:
    """On one line, and writable to any terminal: what is not printable is escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
