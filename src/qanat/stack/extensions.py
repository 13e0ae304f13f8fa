"""What layers learned about a connection or a request, by type.

Append-only: a later value of a type hides the earlier one, nothing is removed. A child made by
:meth:`Extensions.fork` sees its parent and writes only into itself: one for each request on a
connection, each retry, each route that is tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

__all__ = ["Extensions"]

T = TypeVar("T")


class Extensions:
    """A map from type to the newest value of that type."""

    __slots__ = ("_newest", "_older", "_parent")

    def __init__(self) -> None:
        # Most connections learn a few things only, so nothing is made before the first.
        self._newest: dict[type, object] | None = None
        self._older: list[object] | None = None
        self._parent: Extensions | None = None

    def insert(self, value: object) -> None:
        """Add a value; its class is its key."""
        kind = type(value)
        if self._newest is None:
            self._newest = {}
        elif kind in self._newest:
            if self._older is None:
                self._older = []
            self._older.append(self._newest[kind])
        self._newest[kind] = value

    def get(self, kind: type[T]) -> T | None:
        """The newest value of exactly this class, here or in a parent."""
        here: Extensions | None = self
        while here is not None:
            if here._newest is not None:
                found = here._newest.get(kind)
                if found is not None:
                    return found  # type: ignore[return-value]
            here = here._parent
        return None

    def require(self, kind: type[T]) -> T:
        """The same for what must be there: its absence is a mistake in the stack."""
        found = self.get(kind)
        if found is None:
            raise LookupError(
                f"no {kind.__name__} in the extensions: the layer that adds it is not in this stack"
            )
        return found

    def all(self, kind: type[T]) -> Iterator[T]:
        """Every value of this class, the newest first, then those of the parents."""
        here: Extensions | None = self
        while here is not None:
            if here._newest is not None and kind in here._newest:
                yield here._newest[kind]  # type: ignore[misc]
                for value in reversed(here._older or ()):
                    if type(value) is kind:
                        yield value
            here = here._parent

    def fork(self) -> Extensions:
        """A child that sees what is here, now and later, and keeps what it learns to itself."""
        child = Extensions()
        child._parent = self
        return child

    def __contains__(self, kind: type) -> bool:
        return self.get(kind) is not None

    def __iter__(self) -> Iterator[object]:
        """The newest value of each class, those of the parents last."""
        seen: set[type] = set()
        here: Extensions | None = self
        while here is not None:
            for kind, value in (here._newest or {}).items():
                if kind not in seen:
                    seen.add(kind)
                    yield value
            here = here._parent

    def __repr__(self) -> str:
        return f"Extensions({', '.join(map(repr, self))})"
