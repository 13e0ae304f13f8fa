"""Feeding parsers: in pieces, and with what is no message at all."""

from __future__ import annotations

from typing import TypeVar

from qanat.stack.codec.verdict import NEED_MORE, Parsed, Parser
from qanat.stack.errors import RemoteProtocolError

__all__ = ["one_at_a_time", "survives"]

T = TypeVar("T")


def one_at_a_time(parse: Parser[T], data: bytes) -> Parsed[T]:
    """What comes out when the bytes come one by one; every prefix must ask for more."""
    for end in range(len(data)):
        assert parse(data[:end]) is NEED_MORE, f"{end} of {len(data)} bytes were enough"
    found = parse(data)
    assert found is not NEED_MORE
    return found


def survives(parse: Parser[T], data: bytes, cap: int) -> None:
    """Whatever the bytes: a message within them, a wish for more below the cap, or our error. A
    prefix that was refused or understood is so with more bytes, too."""
    settled = False
    for end in range(len(data) + 1):
        try:
            found = parse(data[:end])
        except RemoteProtocolError:
            settled = True
            continue
        if found is NEED_MORE:
            assert not settled, "more bytes made a settled matter open again"
            assert end < cap, "asks for more than its cap"
            continue
        assert 0 < found.size <= end
        settled = True
