"""What ``qanat top`` shows: flows with the speeds between two looks at them, sorted. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["SORTS", "Rates", "Row", "ordered"]


@dataclass(frozen=True, slots=True)
class Row:
    flow: Mapping[str, Any]
    up: float
    """Bytes a second from client to target."""
    down: float

    @property
    def rate(self) -> float:
        return self.up + self.down


SORTS: Final[tuple[str, ...]] = ("rate", "up", "down", "bytes", "age", "idle", "client", "endpoint")


def ordered(rows: Sequence[Row], sort: str, *, reverse: bool = False) -> list[Row]:
    """Largest first where it is a number, by text else; equal ones stay in the flows' order."""
    if sort in ("client", "endpoint"):
        return sorted(rows, key=lambda row: (str(row.flow[sort]), row.flow["id"]), reverse=reverse)
    return sorted(rows, key=lambda row: (-_number(row, sort), row.flow["id"]), reverse=reverse)


def _number(row: Row, sort: str) -> float:
    match sort:
        case "up":
            return row.up
        case "down":
            return row.down
        case "bytes":
            return float(row.flow["bytes_up"] + row.flow["bytes_down"])
        case "age":
            return float(row.flow["duration"])
        case "idle":
            return float(row.flow["idle"])
        case _:
            return row.rate


class Rates:
    """Remembers the last look, to tell how much moved since."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, int]] = {}
        self._at: float | None = None

    def look(self, flows: Sequence[Mapping[str, Any]], now: float) -> list[Row]:
        """``now`` in seconds of a steady clock. A flow that is new counts from its own start."""
        rows = []
        for flow in flows:
            since = (
                now - self._at
                if self._at is not None and flow["id"] in self._seen
                else (flow["duration"])
            )
            up, down = self._seen.get(flow["id"], (0, 0))
            span = max(since, 0.001)
            rows.append(
                Row(
                    flow,
                    max(flow["bytes_up"] - up, 0) / span,
                    max(flow["bytes_down"] - down, 0) / span,
                )
            )
        self._seen = {flow["id"]: (flow["bytes_up"], flow["bytes_down"]) for flow in flows}
        self._at = now
        return rows
