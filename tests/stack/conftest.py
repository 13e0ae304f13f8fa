"""Loops for tests of the framework, and what must not be left when a test ends."""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, TypeVar

import pytest
import uvloop

__all__: list[str] = []

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

LIMIT = 20.0
"""Seconds for one test, on a machine that has other things to do."""


def _asyncio() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _eager() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def _uvloop() -> asyncio.AbstractEventLoop:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return uvloop.new_event_loop()


_LOOPS = {"asyncio": _asyncio, "uvloop": _uvloop}
if sys.version_info >= (3, 12):
    _LOOPS["eager"] = _eager


@cache
def look_at_few_objects() -> None:
    """From now on, collections look at what tests make alone, and not at all modules of all tests.

    Those who warn of what is left do so as before."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=list(_LOOPS))
def run(request: pytest.FixtureRequest) -> Run[Any]:
    """Runs a coroutine on each kind of loop; fails if it leaves a task or an unclosed resource."""

    look_at_few_objects()

    def of_loop(work: Coroutine[Any, Any, T]) -> T:
        async def watched() -> T:
            async with asyncio.timeout(LIMIT):
                result = await work
            # What was told to end needs a few rounds to have ended.
            for _ in range(20):
                left = asyncio.all_tasks() - {asyncio.current_task()}
                if not left:
                    break
                await asyncio.wait(left, timeout=0.1)
            assert not left, f"tasks are left: {left}"
            return result

        with asyncio.Runner(loop_factory=_LOOPS[request.param]) as runner:
            result = runner.run(watched())
        gc.collect()
        return result

    return of_loop
