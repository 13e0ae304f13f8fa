"""Detaching from the terminal, the pid file, and the limit of descriptors.

A daemon is made before any thread exists: the process that was called waits until its grandchild
has bound everything (or failed) and ends with that result. Knows processes, not relays.
"""

from __future__ import annotations

import fcntl
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

from qanat.errors import QanatError

__all__ = ["Detached", "PidFile", "detach", "raise_descriptor_limit"]

_UMASK: Final = 0o022
_READY: Final = b"\0"


class Detached:
    """The daemon's line to the process that waits for it."""

    def __init__(self, line: int) -> None:
        self._line = line

    def ready(self) -> None:
        """Let the waiting process end with success, and leave its terminal."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        _flush()
        for number in (0, 1, 2):
            os.dup2(nowhere, number)
        if nowhere > 2:
            os.close(nowhere)
        # If nobody waits any more we are detached all the same.
        with suppress(OSError):
            os.write(self._line, _READY)
        os.close(self._line)


def detach() -> Detached:
    """Go on as a daemon; only the daemon returns. No thread may be running yet.

    The caller's process stays until :meth:`Detached.ready` (and exits 0) or the daemon's end (and
    exits with 1, the daemon having said why on stderr, which is still the caller's).
    """
    _flush()
    waiting, line = os.pipe()
    if os.fork():
        os.close(line)
        _wait_and_exit(waiting)
    os.close(waiting)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.umask(_UMASK)
    return Detached(line)


def _flush() -> None:
    """What is still held would be written by both of two processes, or nowhere."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _wait_and_exit(waiting: int) -> NoReturn:
    code = 1
    try:
        if os.read(waiting, 1) == _READY:
            code = 0
    except KeyboardInterrupt:
        code = 130
    os._exit(code)


class PidFile:
    """Holds our number while we run, and a lock that tells it from a leftover.

    :raises QanatError: another live process holds it, or it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._lock()
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, f"{os.getpid()}\n".encode())
        except OSError as error:
            raise QanatError(
                f"pid file {path}: {error.strerror or error}", code="pid_file"
            ) from error

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise QanatError(
                f"pid file {self._path}: process {holder or 'unknown'} is running with it",
                code="pid_file",
            ) from None

    def remove(self) -> None:
        # Its directory may be gone or no longer ours to write: a leftover does no harm.
        with suppress(OSError):
            os.unlink(self._path)
        os.close(self._descriptor)


def raise_descriptor_limit(wanted: int | None) -> tuple[int, int]:
    """Raise the soft limit to the hard one, or set both to ``wanted``; the limits that hold now.

    What the system does not allow is left as it is: the limits tell.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    goal = (hard, hard) if wanted is None else (wanted, wanted)
    for limits in (goal, (min(goal[0], hard), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            break
        except (OSError, ValueError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)
