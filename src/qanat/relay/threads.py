"""A few threads for functions that block. They never keep the program from ending.

The standard library's pool joins its threads when the interpreter exits: one function that hangs
would keep the process alive for ever.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Threads"]


class Threads:
    """Runs what it is given, in order, on up to ``most`` threads, which begin when needed.

    What is given must not raise. All methods may be called from any thread.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._waiting: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._idle = 0
        self._begun = 0
        self._closed = False

    def run(self, function: Callable[[], None]) -> None:
        with self._changed:
            self._waiting.append(function)
            if self._idle >= len(self._waiting):
                self._changed.notify()
                return
            if self._begun == self._most:
                return
            self._begun += 1
            number = self._begun
        threading.Thread(target=self._work, name=f"{self._name}-{number}", daemon=True).start()

    def close(self) -> None:
        """Threads end when nothing waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._waiting and not self._closed:
                    self._changed.wait()
                self._idle -= 1
                if not self._waiting:
                    self._begun -= 1
                    return
                function = self._waiting.popleft()
            function()
