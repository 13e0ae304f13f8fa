"""The sockets of another process, to ask the kernel what they are. Needs root."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["sockets_of"]

_PIDFD_GETFD = 438
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def sockets_of(pid: int) -> Iterator[list[socket.socket]]:
    """Copies of its TCP and UDP sockets: what is asked of a copy is asked of the original."""
    copies: list[socket.socket] = []
    handle = os.pidfd_open(pid)
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                is_socket = os.readlink(entry).startswith("socket:")
            except FileNotFoundError:
                continue
            if not is_socket:
                continue
            number = _libc.syscall(_PIDFD_GETFD, handle, int(entry.name), 0)
            if number < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            copy = socket.socket(fileno=number)
            if copy.family in (socket.AF_INET, socket.AF_INET6):
                copies.append(copy)
            else:
                copy.close()
        yield copies
    finally:
        os.close(handle)
        for copy in copies:
            copy.close()
