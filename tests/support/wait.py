"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["wait_until", "wait_until_async"]

_PAUSE = 0.01


def wait_until(condition: Callable[[], object], timeout: float = 15.0, what: str = "") -> None:
    """Return as soon as ``condition()`` holds; fail if it does not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or condition}")
        time.sleep(_PAUSE)


async def wait_until_async(
    condition: Callable[[], object],
    timeout: float = 15.0,  # noqa: ASYNC109 - the same words as above
    what: str = "",
) -> None:
    """The same, leaving the event loop free meanwhile."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or condition}")
        await asyncio.sleep(_PAUSE)
