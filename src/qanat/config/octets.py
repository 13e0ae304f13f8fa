"""Bytes as people write them in a configuration: text, or hexadecimal after ``0x``. Pure."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["OctetsError", "parse_octets"]

_HEX: Final = re.compile(r"0[xX](?:[0-9A-Fa-f]{2})+", re.ASCII)


class OctetsError(ValueError):
    """A text is no bytes. ``hint`` says what would be."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def parse_octets(text: str, most: int) -> bytes:
    """``SSH-`` is four bytes, ``0x1603`` is two."""
    if text == "":
        raise OctetsError("must not be empty", "text as SSH-, or hexadecimal as 0x1603")
    if text[:2] in ("0x", "0X"):
        if not _HEX.fullmatch(text):
            raise OctetsError("is not hexadecimal", "two digits for each byte, as 0x1603")
        octets = bytes.fromhex(text[2:])
    else:
        try:
            octets = text.encode()
        except UnicodeEncodeError:
            raise OctetsError("is not valid text", "other bytes are written as 0xff00") from None
    if len(octets) > most:
        raise OctetsError(f"{len(octets)} bytes are too many", f"at most {most}")
    return octets
