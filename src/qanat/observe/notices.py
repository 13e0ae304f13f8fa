"""What the engine remarks besides the ends of flows, in the log. Knows a notice by its fields."""

from __future__ import annotations

import logging
from typing import Protocol

__all__ = ["EngineNotice", "write_notice"]

_logger = logging.getLogger("qanat.engine")


class EngineNotice(Protocol):
    """What is read of a notice (see ``qanat.relay.notice.Notice``)."""

    @property
    def endpoint(self) -> str | None: ...
    @property
    def code(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def count(self) -> int: ...


def write_notice(notice: EngineNotice) -> None:
    """Log it as a warning on ``qanat.engine``; those of one code and endpoint are repeats."""
    place = f"{notice.endpoint}: " if notice.endpoint else ""
    times = f" ({notice.count} times)" if notice.count > 1 else ""
    _logger.warning(
        "%s%s%s",
        place,
        notice.text,
        times,
        extra={
            "kind": (notice.endpoint, notice.code),
            "fields": {"endpoint": notice.endpoint, "code": notice.code, "count": notice.count},
        },
    )
