"""Reading one message of a codec from a stream; what follows it stays in the stream."""

from __future__ import annotations

from typing import TypeVar

from qanat.stack.codec.verdict import NEED_MORE, Parser
from qanat.stack.errors import IncompleteRead
from qanat.stack.stream.base import CHUNK, Stream

__all__ = ["read_message"]

T = TypeVar("T")


async def read_message(stream: Stream, parse: Parser[T], what: str) -> T:
    """Raises IncompleteRead if the stream ends within the message ("`what` was cut short")."""
    seen = await stream.read(CHUNK)
    ended = not seen
    while True:
        found = parse(seen)
        if found is not NEED_MORE:
            stream.unread(seen[found.size :])
            return found.value
        if ended:
            raise IncompleteRead(f"{what} was cut short", partial=seen)
        more = await stream.read(CHUNK)
        ended = not more
        seen += more
