"""Carrying a body from one side to the other as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from qanat.stack.codec.http1 import Chunks, Framing
from qanat.stack.errors import IncompleteRead, PhaseTimeout, StreamBroken
from qanat.stack.stream.base import CHUNK, Stream

__all__ = ["carry"]


async def carry(
    source: Stream,
    sink: Stream,
    framing: Framing,
    *,
    idle: float | None,
    payload_only: bool = False,
    status: int = 400,
    before: bytes = b"",
    passing: Callable[[int], Awaitable[None]] | None = None,
) -> int:
    """How many bytes went. What follows the body stays in the source, and what comes ``before`` it
    goes out with the first of it. ``passing`` is told of bytes before they go, and may wait.

    Chunks are passed on as they are, or as what they hold with ``payload_only``. Raises
    IncompleteRead when the body is cut short, PhaseTimeout after ``idle`` seconds without a byte.
    """
    kind = framing.kind
    if kind == "none":
        return 0
    moved, left = 0, framing.length
    chunks = Chunks(status) if kind == "chunked" else None
    while True:
        data = await _read(source, min(CHUNK, left) if kind == "length" else CHUNK, idle)
        if not data:
            if kind == "until end":
                return moved
            raise IncompleteRead("a body was cut short", partial=b"")
        if chunks is not None:
            payload: list[bytes] | None = [] if payload_only else None
            used = chunks.feed(data, payload)
            if used < len(data):
                source.unread(data[used:])
                data = data[:used]
            if payload is not None:
                data = b"".join(payload)
        if passing is not None:
            await passing(len(before) + len(data))
        await sink.write(before + data if before else data)
        before = b""
        moved += len(data)
        if kind == "length":
            left -= len(data)
            if not left:
                return moved
        elif chunks is not None and chunks.done:
            return moved


async def _read(source: Stream, most: int, idle: float | None) -> bytes:
    try:
        if idle is None or source.has_unread:
            return await source.read(most)
        async with asyncio.timeout(idle):
            return await source.read(most)
    except StreamBroken as error:
        # Told apart from a sink that takes no more.
        raise IncompleteRead("a body was cut short by a reset") from error
    except TimeoutError as error:
        raise PhaseTimeout("body", idle or 0.0) from error
