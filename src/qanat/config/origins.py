"""Where each value of a whole configuration was written, also when it came of many files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from qanat.config.places import KeyPath, Place, dotted
from qanat.config.tidy import Source
from qanat.errors import Problem

__all__ = ["Origins"]


@dataclass(slots=True)
class Origins:
    endpoints: list[tuple[Source, int]] = field(default_factory=list)
    """For each endpoint the source it is from, and its number there."""

    fields: dict[KeyPath, Source] = field(default_factory=dict)
    """For each other key that was given, the source whose value won."""

    def locate(self, path: KeyPath) -> tuple[KeyPath, Place]:
        """The path as written, and where that is. What nobody wrote has no place."""
        if len(path) > 1 and path[0] == "endpoints" and isinstance(path[1], int):
            if path[1] >= len(self.endpoints):
                return path, Place()
            source, number = self.endpoints[path[1]]
            return source.locate(("endpoints", number, *path[2:]))
        found = self.fields.get(path[:2]) or self.fields.get(path[:1])
        return (path, Place()) if found is None else found.locate(path)

    def problem(self, path: KeyPath, message: str, **more: object) -> Problem:
        """A problem at a key of the whole configuration."""
        written, place = self.locate(path)
        made = Problem(message, **more)  # type: ignore[arg-type]  # checked by each caller's test
        return replace(
            made,
            file=place.file,
            line=place.line,
            column=place.column,
            key=dotted(written) or None,
        )
