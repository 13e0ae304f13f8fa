"""Amounts of bytes and of bytes a second as people write them. Pure."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["LARGEST", "QuantityError", "parse_rate", "parse_size"]

LARGEST: Final = 2**63 - 1

_SHAPE: Final = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,9}))?\s*([A-Za-z]*)(/s)?", re.ASCII)
_POWERS: Final = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}
# In bits, so that all of them are whole numbers.
_BYTES: Final = {
    "": 8,
    **{f"{prefix}B": 8 * 1000**power for prefix, power in _POWERS.items()},
    **{f"{prefix}iB": 8 * 1024**power for prefix, power in _POWERS.items() if prefix},
}
_BITS: Final = {f"{prefix}bit": 1000**power for prefix, power in _POWERS.items()}


class QuantityError(ValueError):
    """A text is not an amount. ``hint`` says what would be."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def parse_size(text: str) -> int:
    """Bytes: ``10GiB`` (1024 times 1024 times 1024), ``10 GB`` (thousands), ``512``."""
    return _parse(text, _BYTES, per_second=False, example="500MB or 10GiB")


def parse_rate(text: str) -> int:
    """Bytes a second: ``10MiB/s``, ``100Mbit/s``, ``2000000``; the ``/s`` may be left out."""
    return _parse(text, _BYTES | _BITS, per_second=True, example="10MiB/s or 100Mbit/s")


def _parse(text: str, units: dict[str, int], *, per_second: bool, example: str) -> int:
    shape = _SHAPE.fullmatch(text.strip())
    if shape is None or (shape[4] and not per_second):
        what = "a number of bytes a second" if per_second else "a number of bytes"
        raise QuantityError(f"is not {what}", f"as {example}")
    whole, fraction, unit, _ = shape.groups(default="")
    factor = units.get(unit)
    if factor is None:
        raise QuantityError(f'"{unit}" is not a unit', _meant(unit, units, example))
    number = int(whole + fraction)
    amount: int = number * factor // (8 * 10 ** len(fraction))
    if amount > LARGEST:
        raise QuantityError("is more than can be counted", f"at most {LARGEST} bytes")
    if amount == 0 and number != 0:
        raise QuantityError("is less than one byte", "0 is no limit")
    return amount


def _meant(unit: str, units: dict[str, int], example: str) -> str:
    """``m`` may be a million or 1024 times 1024, and ``Mb`` may be bits: nothing is guessed."""
    letter = unit[:1].upper()
    prefix = "k" if letter == "K" else letter
    if prefix not in _POWERS or not prefix:
        return f"as {example}"
    choices = [f"{prefix}B (thousands)", f"{letter}iB (1024)"]
    if f"{prefix}bit" in units:
        choices.append(f"{prefix}bit (bits)")
    return f"{', '.join(choices[:-1])} or {choices[-1]}"
