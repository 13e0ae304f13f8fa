"""Threads for calls that block: bounds, errors, cancelling, loops that are gone."""

from __future__ import annotations

import asyncio
import os
import threading
from functools import partial
from typing import Any

import pytest

from qanat.stack.errors import LimitReached
from qanat.stack.threads import Threads
from tests.support.wait import wait_until

__all__: list[str] = []


def test_results_and_errors(run: Any) -> None:
    threads = Threads("test", 2, 10)

    def fails() -> None:
        raise ValueError("no")

    async def work() -> None:
        assert await threads.run(threading.get_ident) != threading.get_ident()
        calls = [threads.run(partial(abs, -number)) for number in range(5)]
        assert await asyncio.gather(*calls) == [*range(5)]
        with pytest.raises(ValueError, match="no"):
            await threads.run(fails)
        assert await threads.run(lambda: "after") == "after"

    run(work())
    assert threads._threads <= 2


def test_who_waits_has_a_bound(run: Any) -> None:
    threads, go = Threads("lookups", 1, 2), threading.Event()
    began = threading.Event()

    def first() -> bool:
        began.set()
        return go.wait(20)

    async def work() -> None:
        tasks = [asyncio.ensure_future(threads.run(first))]
        await asyncio.sleep(0)
        began.wait(20)
        tasks += [asyncio.ensure_future(threads.run(lambda: True)) for _ in range(2)]
        await asyncio.sleep(0)
        try:
            with pytest.raises(LimitReached, match="lookups: 2 wait already"):
                await threads.run(lambda: True)
        finally:
            go.set()
        assert await asyncio.gather(*tasks) == [True, True, True]
        assert await threads.run(lambda: 7) == 7

    run(work())
    assert threads._threads == 1


def test_cancelled_the_call_goes_on_and_is_forgotten(run: Any) -> None:
    threads, go, ended = Threads("test", 1, 2), threading.Event(), threading.Event()

    def call() -> None:
        go.wait(20)
        ended.set()

    async def work() -> None:
        task = asyncio.ensure_future(threads.run(call))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        go.set()
        assert await threads.run(lambda: 7) == 7

    run(work())
    assert ended.is_set()


def test_a_loop_that_is_gone_is_not_told() -> None:
    threads, go = Threads("test", 1, 2), threading.Event()

    async def leave() -> None:
        task = asyncio.ensure_future(threads.run(lambda: go.wait(20)))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    go.set()

    async def again() -> int:
        return await threads.run(lambda: 7)

    assert asyncio.run(again()) == 7


def test_threads_that_rest_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qanat.stack.threads._IDLE_SECONDS", 0.01)
    threads = Threads("test", 2, 2)

    async def work() -> int:
        return await threads.run(lambda: 7)

    assert asyncio.run(work()) == 7
    wait_until(lambda: threads._threads == 0, what="the thread has ended")
    assert asyncio.run(work()) == 7


def test_after_a_fork_they_are_made_anew(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child has none of its parent's threads, so what they were counted for counts no more."""
    threads = Threads("test", 1, 1)
    threads._threads = 1
    monkeypatch.setattr(threads, "_pid", os.getpid() + 1)

    async def work() -> int:
        return await threads.run(lambda: 7)

    assert run(work()) == 7
