"""A few threads for calls that block: looking names up, hashing passwords.

Unlike a pool of the standard library these threads are daemons, so that a lookup which hangs in the
system's resolver does not keep a process from ending; they end when idle, and what waits for one
has a bound.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

from qanat.stack.errors import LimitReached

__all__ = ["Threads"]

T = TypeVar("T")

_IDLE_SECONDS: Final = 10.0


class Threads:
    """At most ``most`` threads and ``waiting`` calls that wait for one. Made when needed, in each
    process anew after a fork."""

    def __init__(self, name: str, most: int, waiting: int) -> None:
        self._name = name
        self._most = most
        self._waiting = waiting
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._calls: deque[tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]]]
        self._calls = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises. Cancelled, the call goes on and is forgotten.

        Raises LimitReached when too many wait.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def settle(value: T, error: BaseException | None) -> None:
            if result.done():
                return
            if error is None:
                result.set_result(value)
            else:
                result.set_exception(error)

        def ended(value: T, error: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(settle, value, error)
            except RuntimeError:
                # The loop is closed: nobody waits any more.
                return

        self._enqueue(call, ended)
        return await result

    def _enqueue(
        self, call: Callable[[], T], ended: Callable[[T, BaseException | None], None]
    ) -> None:
        if self._pid != os.getpid():
            self._forget()
        with self._changed:
            if len(self._calls) >= self._waiting + self._idle:
                raise LimitReached(f"{self._name}: {self._waiting} wait already", retry_after=1.0)
            self._calls.append((call, ended))
            if self._idle >= len(self._calls):
                self._changed.notify()
                return
            if self._threads >= self._most:
                return
            self._threads += 1
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                found = self._changed.wait_for(lambda: self._calls, timeout=_IDLE_SECONDS)
                self._idle -= 1
                if not found:
                    self._threads -= 1
                    return
                call, ended = self._calls.popleft()
            try:
                value = call()
            except BaseException as error:
                ended(None, error)
            else:
                ended(value, None)
            # Nothing of this call is kept while the next one is waited for.
            del call, ended
