"""How often the same thing may be said.

A few messages of one kind pass, the rest of a window is counted, and the count is told when the
window is over. Pure: the time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

__all__ = ["Repeats", "Withheld"]

Message = TypeVar("Message")


@dataclass(slots=True)
class _Window(Generic[Message]):
    ends: float
    passed: int
    withheld: int
    last: Message


@dataclass(frozen=True, slots=True)
class Withheld(Generic[Message]):
    """What a window kept back: how many, and the last of them."""

    count: int
    last: Message


class Repeats(Generic[Message]):
    """Bounded memory of what was said lately. Not for several threads at once."""

    KINDS: Final = 1024
    """Kinds of message remembered; the one longest silent is forgotten first."""

    def __init__(self, *, burst: int = 5, window: float = 10.0) -> None:
        self._burst = burst
        self._window = window
        self._windows: OrderedDict[Hashable, _Window[Message]] = OrderedDict()

    def admit(self, kind: Hashable, message: Message, now: float) -> bool:
        """Whether to say it; what is not said is counted."""
        window = self._windows.get(kind)
        if window is None or (now >= window.ends and not window.withheld):
            self._windows[kind] = _Window(now + self._window, 1, 0, message)
            self._windows.move_to_end(kind)
            while len(self._windows) > self.KINDS:
                self._windows.popitem(last=False)
            return True
        self._windows.move_to_end(kind)
        if window.passed < self._burst and now < window.ends:
            window.passed += 1
            return True
        window.withheld += 1
        window.last = message
        return False

    def due(self, now: float, *, all_of_them: bool = False) -> list[Withheld[Message]]:
        """The counts to be told now. A kind that goes on repeating is then told of once a window
        and no more: its next window begins with the burst used up."""
        told = []
        for kind, window in list(self._windows.items()):
            if now < window.ends and not all_of_them:
                continue
            if window.withheld:
                told.append(Withheld(window.withheld, window.last))
                window.ends = now + self._window
                window.passed = self._burst
                window.withheld = 0
            else:
                del self._windows[kind]
        return told
