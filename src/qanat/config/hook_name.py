"""The text of ``hook``: which function decides. Pure: nothing is imported or looked for here."""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass
from typing import Final

from qanat.config.places import printable

__all__ = ["DEFAULT_FUNCTION", "HookName", "HookNameError", "parse_hook"]

DEFAULT_FUNCTION: Final = "decide"
"""What a file is asked for that is named without a function."""

_MODULE: Final = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_LIBRARIES: Final = (".so", ".dll", ".dylib")
_SHAPE: Final = "module:function, or a file as /etc/qanat/hooks.py:function"


class HookNameError(ValueError):
    """A text names no function. ``hint`` says what would."""

    def __init__(self, message: str, hint: str | None = _SHAPE) -> None:
        super().__init__(printable(message))
        self.hint = hint


@dataclass(frozen=True, slots=True)
class HookName:
    module: str | None
    file: str | None
    """One of the two is there."""
    function: str

    def __str__(self) -> str:
        """As a plan has it: the file by its whole path."""
        home = self.module if self.file is None else os.path.abspath(self.file)
        return f"{home}:{self.function}"


def parse_hook(text: str) -> HookName:
    """``package.module:function``, ``path/to/file.py:function``, or ``path/to/file.py``."""
    if not text or text != text.strip() or not text.isprintable():
        raise HookNameError("names no function")
    home, colon, function = text.rpartition(":")
    if not colon:
        home, function = text, DEFAULT_FUNCTION
    if any(part.lower().endswith(_LIBRARIES) for part in (home, text)):
        raise HookNameError(
            "a library with realm's binary hook can't be loaded",
            "write the decision as a Python function and name it as module:function",
        )
    if not _MODULE.fullmatch(function):
        raise HookNameError(f'"{function}" is not the name of a function')
    if home.endswith(".py"):
        return HookName(None, home, function)
    if not _MODULE.fullmatch(home):
        raise HookNameError(f'"{home}" is neither a module nor a .py file')
    if not colon:
        raise HookNameError("the function is missing", f"{text}:{DEFAULT_FUNCTION}")
    return HookName(home, None, function)
