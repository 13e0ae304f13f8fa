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


def _kind(notice: EngineNotice) -> tuple[str | None, str]:
    # Changes of remotes come once each; one of them is no repeat of another.
    is_change = notice.code in ("remote_down", "remote_up")
    return notice.endpoint, notice.text if is_change else notice.code


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
            "kind": _kind(notice),
            "fields": {"endpoint": notice.endpoint, "code": notice.code, "count": notice.count},
        },
    )
