"""The same server in several processes, which share its ports by ``SO_REUSEPORT``.

Limits and counters are each worker's own. Nothing of a loop or of the engine may have been started
before: threads do not come along into a worker.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from qanat.stack.errors import LocalProtocolError

__all__ = ["run_workers"]

_log = logging.getLogger("qanat.stack.workers")

_PR_SET_PDEATHSIG: Final = 1
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 10.0
_PROVEN: Final = 1.0
"""Seconds after which a worker has come up."""
_MOST: Final = 1024
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
_PASSED_ON: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def run_workers(main: Callable[[int], int | None], count: int) -> int:
    """Run ``main(number)`` in ``count`` processes; the exit code for the program.

    ::

        def main(number: int) -> None:
            asyncio.run(serve())  # its listeners with reuse_port=True

        sys.exit(run_workers(main, 4))

    SIGTERM and SIGINT end all of them, in order if they do it in order; SIGHUP, SIGUSR1 and SIGUSR2
    are passed on. A worker that dies is replaced, more and more slowly if it does so again and
    again. One that fails in its first second, before any has come up, ends the program with its
    code: its port is taken, say. When this process dies, however, they get SIGTERM.
    """
    if not 0 < count <= _MOST:
        raise LocalProtocolError(f"{count} workers: between 1 and {_MOST}")
    if threading.active_count() > 1:
        raise LocalProtocolError("workers are started before any thread")
    watched = {*_ENDING, *_PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        return _Foreman(main, count, before).run(watched)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(slots=True)
class _Worker:
    number: int
    pid: int = 0
    """0 while there is none."""
    began: float = 0.0
    wait: float = _FIRST_WAIT
    due: float = 0.0
    """When the next one is started, if there is none."""
    done: bool = False


class _Foreman:
    def __init__(
        self, main: Callable[[int], int | None], count: int, mask: set[int | signal.Signals]
    ) -> None:
        self._main = main
        self._mask = mask
        self._workers = [_Worker(number) for number in range(count)]
        self._ending = False
        self._proven = False
        self._code = 0

    def run(self, watched: set[signal.Signals]) -> int:
        for worker in self._workers:
            self._start(worker)
        while not all(worker.done for worker in self._workers):
            told = signal.sigtimedwait(watched, self._patience())
            if told is not None:
                self._hear(signal.Signals(told.si_signo))
            self._bury()
            now = time.monotonic()
            for worker in self._workers:
                if not worker.pid and not worker.done and worker.due <= now:
                    self._start(worker)
        return self._code

    def _patience(self) -> float:
        """Until the next worker is to be started."""
        now = time.monotonic()
        due = [worker.due for worker in self._workers if not worker.pid and not worker.done]
        return max(0.0, min(due, default=now + 3600.0) - now)

    def _hear(self, number: signal.Signals) -> None:
        if number in _ENDING:
            self._end()
        if number != signal.SIGCHLD:
            self._tell(number)

    def _tell(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, number)

    def _end(self) -> None:
        self._ending = True
        for worker in self._workers:
            worker.done = worker.done or not worker.pid

    def _bury(self) -> None:
        """Whoever has ended: done with, replaced, or the end of all."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for worker in self._workers:
                if worker.pid == pid:
                    self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: _Worker, code: int) -> None:
        lived = time.monotonic() - worker.began
        worker.pid = 0
        self._proven = self._proven or lived >= _PROVEN
        if code == 0 or self._ending:
            worker.done = True
            # A worker that was told to end by a signal and knew no better did as it was told.
            if code > 0 or (code < 0 and -code not in _ENDING):
                self._code = self._code or abs(code)
            return
        if not self._proven and worker.wait == _FIRST_WAIT:
            _log.error("worker %d did not come up (%s)", worker.number, _told(code))
            self._code = self._code or abs(code)
            worker.done = True
            self._end()
            self._tell(signal.SIGTERM)
            return
        worker.wait = _FIRST_WAIT if lived >= _LONGEST_WAIT else worker.wait
        worker.due = time.monotonic() + worker.wait
        _log.warning(
            "worker %d has died (%s); another one in %.1f s",
            worker.number,
            _told(code),
            worker.wait,
        )
        worker.wait = min(worker.wait * 2, _LONGEST_WAIT)

    def _start(self, worker: _Worker) -> None:
        # What is buffered would be written by both.
        sys.stdout.flush()
        sys.stderr.flush()
        foreman = os.getpid()
        worker.began = time.monotonic()
        worker.pid = os.fork()
        if not worker.pid:
            self._work(worker.number, foreman)

    def _work(self, number: int, foreman: int) -> NoReturn:
        code = 1
        try:
            _die_with(foreman)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            code = self._main(number) or 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # What the foreman has registered for its own end is not ours to do.
            os._exit(code)


def _told(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _die_with(foreman: int) -> None:
    """Ask the kernel for SIGTERM when the parent dies, also if it just has."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != foreman:
        os._exit(1)
