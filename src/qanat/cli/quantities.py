"""Numbers as people read them. Pure."""

from __future__ import annotations

__all__ = ["bytes_text", "rate_text", "seconds_text"]

_STEP = 1024
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def bytes_text(number: float) -> str:
    """``0 B``, ``1.5 KiB``, ``20.0 GiB``."""
    size = float(number)
    for unit in _UNITS[:-1]:
        if size < _STEP - 0.05:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _STEP
    return f"{size:.1f} {_UNITS[-1]}"


def rate_text(number: float) -> str:
    """Bytes a second; a dot where there are none, so that what moves is seen."""
    return f"{bytes_text(number)}/s" if number >= 0.5 else "."


def seconds_text(number: float) -> str:
    """``0.25s``, ``59.9s``, ``12m04s``, ``3h07m``, ``2d05h``."""
    if number < 1:
        return f"{number:.2f}s"
    if number < 59.95:
        return f"{number:.1f}s"
    minutes, seconds = divmod(round(number), 60)
    if minutes < 60:
        return f"{minutes}m{seconds:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02d}h"
