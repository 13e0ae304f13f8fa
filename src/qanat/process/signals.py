"""Signals of a running program, from its first moment to its last.

While it starts, a signal to stop ends it as an interruption would. Others, and once it serves also
those, are kept until the event loop runs, so that a reload asked for too early neither kills the
program nor gets lost. Once it has stopped, none can spoil its end. Knows only signals.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Final

__all__ = ["HANDLED", "Signals"]

_STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
_KEPT: Final = (signal.SIGHUP, signal.SIGUSR1)
_INTERRUPTED: Final = 130
HANDLED: Final = (*_STOPPING, *_KEPT)


class Signals:
    """Take the signals at once; hand them out while there is a loop. For the main thread."""

    def __init__(self) -> None:
        self._early: list[signal.Signals] = []
        self._before = {number: signal.getsignal(number) for number in HANDLED}
        for number in _STOPPING:
            signal.signal(number, self._end)
        for number in _KEPT:
            signal.signal(number, self._keep)

    @property
    def early(self) -> tuple[signal.Signals, ...]:
        """What was kept so far, before :meth:`deliver`."""
        return tuple(self._early)

    def hold(self) -> None:
        """Keep signals to stop as well: there is something to stop in order now, and soon a loop
        to do it in."""
        for number in _STOPPING:
            signal.signal(number, self._keep)

    def deliver(self, receivers: Mapping[signal.Signals, Callable[[], object]]) -> None:
        """Call the receivers in the running loop from now on, first for what was kept."""
        loop = asyncio.get_running_loop()
        for number, receiver in receivers.items():
            loop.add_signal_handler(number, receiver)
        early, self._early = self._early, []
        for number in early:
            if number in receivers:
                receivers[number]()

    def leave_loop(self) -> None:
        """Nothing is delivered any more; to be called in the loop, at its end."""
        loop = asyncio.get_running_loop()
        for number in HANDLED:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def ignore(self) -> None:
        """The program ends, and nothing shall disturb that."""
        for number in HANDLED:
            signal.signal(number, signal.SIG_IGN)

    def restore(self) -> None:
        """Give every signal back to whoever had it before, if the process is to live on."""
        for number, handler in self._before.items():
            if handler is not None:
                signal.signal(number, handler)

    def _keep(self, number: int, _frame: FrameType | None) -> None:
        self._early.append(signal.Signals(number))

    def _end(self, number: int, _frame: FrameType | None) -> None:
        """Asked to stop before there was anything to stop. Once is enough."""
        self.ignore()
        # Not KeyboardInterrupt: if that passes through an exec() on its way (imports do that),
        # Python ends by killing itself, whoever caught it.
        raise SystemExit(_INTERRUPTED if number == signal.SIGINT else 0)
