"""A time limit for a part of a service's work, which names its phase."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from qanat.stack.errors import PhaseTimeout

__all__ = ["within"]


@asynccontextmanager
async def within(seconds: float | None, phase: str) -> AsyncIterator[None]:
    """``async with within(10, "connect")``; None is no limit.

    :raises PhaseTimeout: the time is over. A TimeoutError from inside, with another meaning,
        passes.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise PhaseTimeout(phase, seconds or 0.0) from error
