"""Functions of the user's that are called with what happens. Knows nothing but logging.

An exception in one of them is its owner's bug and never ours to die of: it is logged, with the
traceback, at most once a second for each function.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

__all__ = ["Callbacks"]

Item = TypeVar("Item")

_QUIET_SECONDS = 1.0

_logger = logging.getLogger("qanat.relay")


class Callbacks(Generic[Item]):
    """Called in the order in which they were added. All methods may be used from any thread."""

    def __init__(self) -> None:
        self._registered: dict[object, _Callback[Item]] = {}

    def __bool__(self) -> bool:
        return bool(self._registered)

    def add(self, function: Callable[[Item], object]) -> Callable[[], None]:
        """Register ``function``, twice if it is given twice; the result takes it out again."""
        token = object()
        self._registered[token] = _Callback(function)

        def remove() -> None:
            self._registered.pop(token, None)

        return remove

    def call(self, items: Iterable[Item]) -> None:
        for callback in list(self._registered.values()):
            for item in items:
                callback.call(item)


class _Callback(Generic[Item]):
    def __init__(self, function: Callable[[Item], object]) -> None:
        self._function = function
        self._unsaid = 0
        self._quiet_until = 0.0

    def call(self, item: Item) -> None:
        try:
            self._function(item)
        except BaseException:  # sys.exit() here would silence every callback of the process
            self._failed()

    def _failed(self) -> None:
        now = time.monotonic()
        if now < self._quiet_until:
            self._unsaid += 1
            return
        more = f" ({self._unsaid} more failures were not logged)" if self._unsaid else ""
        _logger.exception("callback %r failed%s", self._function, more)
        self._unsaid = 0
        self._quiet_until = now + _QUIET_SECONDS
