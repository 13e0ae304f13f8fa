"""Ended flows as an asynchronous iterator. Knows asyncio and flows, and nothing of the engine."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress

from qanat.observe.flow import Flow

__all__ = ["EndedFlows"]


class EndedFlows(AsyncIterator[Flow]):
    """Flows in the order in which they ended, from the moment that this object was made.

    At most ``limit`` records wait for a slow consumer. When one more comes the oldest is dropped
    and counted in ``lost``: a consumer can fall behind, the relay is never held up by it. The
    iteration ends when the relay has stopped and all records were fetched; to end it sooner, drop
    the iterator or call ``close``. Cancelling ``__anext__`` loses nothing.

    One task at a time may wait, in any event loop.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        self.lost: int = 0
        """Records that were dropped."""
        self._waiting: deque[Flow] = deque(maxlen=limit)
        self._limit = limit
        self._closed = False
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        # Between the events thread, which adds, and the loop's thread, which takes.
        self._lock = threading.Lock()

    def __aiter__(self) -> EndedFlows:
        return self

    async def __anext__(self) -> Flow:
        while True:
            with self._lock:
                if self._waiting:
                    return self._waiting.popleft()
                if self._closed:
                    raise StopAsyncIteration
                if self._waiter is not None:
                    raise RuntimeError("another task waits for the next flow of this iterator")
                loop = asyncio.get_running_loop()
                arrived = loop.create_future()
                self._waiter = (loop, arrived)
            try:
                await arrived
            finally:
                with self._lock:
                    self._waiter = None

    def close(self) -> None:
        """End the iteration once the records that wait are fetched. From any thread."""
        with self._lock:
            self._closed = True
            self._wake()

    def add(self, flows: Iterable[Flow]) -> None:
        """Called by the relay, from any thread."""
        with self._lock:
            if self._closed:
                return
            for flow in flows:
                if len(self._waiting) == self._limit:
                    self.lost += 1
                self._waiting.append(flow)
            self._wake()

    def miss(self, count: int) -> None:
        """Called by the relay when records were lost before they came here."""
        self.lost += count

    def _wake(self) -> None:
        if self._waiter is None:
            return
        loop, arrived = self._waiter
        # The loop may have been closed with the task still waiting.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_arrive, arrived)


def _arrive(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)
