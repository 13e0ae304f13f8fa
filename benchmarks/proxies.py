"""Proxies as people run them, for questions that only proxies can be asked."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.failure import BenchmarkError

__all__ = ["Commands", "running"]

Commands = Callable[[int, Path], list[list[str]]]
"""From a port and a folder to the processes that serve the port."""

_READY_SECONDS = 10.0


@contextmanager
def running(name: str, commands: Commands, port: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    with tempfile.TemporaryDirectory() as folder:
        words = commands(port, Path(folder))
        if shutil.which(words[0][0]) is None:
            raise BenchmarkError(f"{words[0][0]} is not installed")
        quiet = subprocess.DEVNULL
        started = [subprocess.Popen(one, stdout=quiet, stderr=quiet) for one in words]
        try:
            until = time.monotonic() + _READY_SECONDS
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise BenchmarkError(f"{name} does not listen") from None
                    time.sleep(0.05)
            if len(started) > 1:
                # The second worker has no address of its own to be asked at.
                time.sleep(1.0)
            yield started
        finally:
            for one in started:
                one.terminate()
            for one in started:
                try:
                    one.wait(5)
                except subprocess.TimeoutExpired:
                    one.kill()
                    one.wait()
