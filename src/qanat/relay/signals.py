"""Signals of a running program, from its first moment on.

A signal that comes before the event loop runs is kept and delivered when it does, so that a reload
asked for while starting neither kills the program nor gets lost. Knows only signals.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Final

__all__ = ["HANDLED", "Signals"]

HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class Signals:
    """Take the signals at once; hand them out once there is a loop. For the main thread."""

    def __init__(self) -> None:
        self._early: list[signal.Signals] = []
        self._before = {number: signal.signal(number, self._keep) for number in HANDLED}

    @property
    def early(self) -> tuple[signal.Signals, ...]:
        """What has come so far, before :meth:`deliver`."""
        return tuple(self._early)

    def deliver(self, receivers: Mapping[signal.Signals, Callable[[], object]]) -> None:
        """Call the receivers in the running loop from now on, for what came early first."""
        loop = asyncio.get_running_loop()
        for number, receiver in receivers.items():
            loop.add_signal_handler(number, receiver)
        early, self._early = self._early, []
        for number in early:
            if number in receivers:
                receivers[number]()

    def restore(self) -> None:
        """Give every signal back to whoever had it before."""
        for number, handler in self._before.items():
            if handler is not None:
                signal.signal(number, handler)

    def _keep(self, number: int, _frame: FrameType | None) -> None:
        self._early.append(signal.Signals(number))
