"""How a check says no, so that pydantic passes the words on unchanged.

:mod:`qanat.config.explain` turns them into problems with a place. Pure.
"""

from __future__ import annotations

from typing import NoReturn

from pydantic_core import PydanticCustomError

from qanat.config.places import printable

__all__ = ["refuse"]


def refuse(message: str, hint: str | None = None, *, kind: str = "wrong", at: str = "") -> NoReturn:
    """``at`` names the field when a check of a whole table finds fault with one."""
    # What is refused is quoted, and it may hold anything.
    words = {
        "message": printable(message),
        "hint": None if hint is None else printable(hint),
        "at": at,
    }
    raise PydanticCustomError(kind, "{message}", words) from None
