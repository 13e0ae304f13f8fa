"""How parsers of this package answer.

A parser is a function from all bytes so far to what they mean and how many they are, or
:data:`NEED_MORE`; it raises RemoteProtocolError for what can't become right by more bytes. It has
a cap of its own: with that many bytes it never asks for more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, TypeVar

__all__ = ["NEED_MORE", "NeedMore", "Parsed", "Parser"]

T = TypeVar("T")


class NeedMore(Enum):
    """Not enough bytes yet."""

    NEED_MORE = "need more"


NEED_MORE: Final = NeedMore.NEED_MORE


@dataclass(frozen=True, slots=True)
class Parsed(Generic[T]):
    value: T
    size: int
    """How many bytes it took from the beginning."""


Parser = Callable[[bytes], Parsed[T] | NeedMore]
