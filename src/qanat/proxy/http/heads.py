"""Reading a head from a stream."""

from __future__ import annotations

from typing import TypeVar

from qanat.stack.codec.http1 import (
    HEAD_CAP,
)
from qanat.stack.codec.verdict import NEED_MORE, Parser
from qanat.stack.errors import (
    IncompleteRead,
)
from qanat.stack.stream.base import Stream

__all__ = ["read_head"]

T = TypeVar("T")


async def read_head(stream: Stream, seen: bytes, parse: Parser[T], what: str) -> tuple[T, bytes]:
    """One head, and its bytes; what follows it stays in the stream."""
    while True:
        found = parse(seen)
        if found is not NEED_MORE:
            stream.unread(seen[found.size :])
            return found.value, seen[: found.size]
        more = await stream.read()
        if not more:
            raise IncompleteRead(f"{what} was cut short", partial=seen)
        seen += more
        while b"\n" not in more and len(seen) <= HEAD_CAP:
            # No line has ended, so nothing could have changed: who sends single bytes does not
            # make us read the whole again for each of them.
            more = await stream.read()
            if not more:
                raise IncompleteRead(f"{what} was cut short", partial=seen)
            seen += more
