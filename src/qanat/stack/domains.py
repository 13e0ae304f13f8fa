"""Sets of domains: a name is in one if it, or a domain above it, is.

Kept as plain sets of names, asked once for each label of what is looked up: for 100,000 names that
is smaller than a tree of labels, and as fast.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["DomainSet"]


class DomainSet:
    """``example.com`` is the domain and all below it, ``*.example.com`` only what is below.

    Case and a dot at the end make no difference. Addresses are in no set.
    """

    __slots__ = ("_below", "_whole")

    def __init__(self, names: Iterable[str] = ()) -> None:
        whole, below = set(), set()
        for name in names:
            plain = name.lower().rstrip(".")
            if plain.startswith("*."):
                below.add(plain[2:])
            elif plain:
                whole.add(plain.removeprefix("."))
        self._whole = frozenset(whole)
        self._below = frozenset(below)

    def __contains__(self, host: object) -> bool:
        if not isinstance(host, str) or ":" in host:
            return False
        name = host.lower()
        if name.endswith("."):
            name = name[:-1]
        if name in self._whole:
            return True
        whole, below = self._whole, self._below
        dot = name.find(".")
        while dot >= 0:
            above = name[dot + 1 :]
            if above in whole or above in below:
                return True
            dot = name.find(".", dot + 1)
        return False

    def __len__(self) -> int:
        return len(self._whole) + len(self._below)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DomainSet):
            return NotImplemented
        return (self._whole, self._below) == (other._whole, other._below)

    def __hash__(self) -> int:
        return hash((self._whole, self._below))

    def __repr__(self) -> str:
        names = sorted([*self._whole, *(f"*.{name}" for name in self._below)])
        shown = ", ".join(names[:3]) + (f", ... {len(names)} in all" if len(names) > 3 else "")
        return f"DomainSet({shown})"
