"""What the engine has to say besides the ends of flows. Does no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Notice"]


@dataclass(frozen=True, slots=True)
class Notice:
    """One remark about an endpoint, such as that it can't accept for want of descriptors."""

    endpoint: str | None
    code: str
    """Stable, for programs."""
    text: str
    """A sentence, for people."""
    count: int = 1
    """How many times since the last notice of this code and endpoint: repeats are counted, and
    told at most once a second."""

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Notice:
        """Tolerant, as the engine's younger or older than this module must not break it."""
        return cls(
            endpoint=record.get("endpoint"),
            code=str(record.get("code", "unknown")),
            text=str(record.get("text", "")),
            count=int(record.get("count", 1)),
        )
