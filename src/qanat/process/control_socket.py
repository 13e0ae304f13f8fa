"""The socket through which a running relay is controlled: where it stands and who may use it.

Bound early, served later. Knows files and sockets, not what is said on them.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qanat.errors import ControlError
from qanat.observe.control import SOCKET_NAME, is_live, own_directory

__all__ = ["ControlSocket"]


class ControlSocket:
    """A Unix socket bound for us alone (mode 0600), replaced if its last owner died.

    ``where`` None takes the usual place, beside another relay that may have it already.

    :raises ControlError: somebody else uses the given path, or it can't be made.
    """

    def __init__(self, where: Path | None = None) -> None:
        try:
            if where is None:
                directory = own_directory()
                _make_private(directory)
                with _alone_in(directory):
                    self._bind(_free_name(directory))
            else:
                self._bind(where.absolute())
        except OSError as error:
            place = where or own_directory()
            reason = error.strerror or str(error)
            raise ControlError(f"control socket {place}: {reason}", code="control") from error

    def _bind(self, path: Path) -> None:
        if _exists(path):
            if not stat.S_ISSOCK(path.stat().st_mode):
                raise ControlError(
                    f"control socket {path}: there is a file that is no socket", code="control"
                )
            if is_live(path):
                raise ControlError(
                    f"control socket {path}: another program uses it", code="control"
                )
            path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX)
        try:
            # Linux gives the file the mode of the socket itself, so it is never open to others,
            # not even between two calls.
            os.fchmod(sock.fileno(), 0o600)
            sock.bind(str(path))
            sock.listen(64)
            self._made = _identity(path)
        except BaseException:
            sock.close()
            raise
        self.path = path
        self.listener = sock

    def remove(self) -> None:
        """Take the name away, if it is still ours."""
        with suppress(OSError):
            if _identity(self.path) == self._made:
                self.path.unlink()
        self.listener.close()


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    # The number alone may be given again to the next file.
    return found.st_ino, found.st_ctime_ns


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _make_private(directory: Path) -> None:
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700, parents=False)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise ControlError(f"control socket {directory}: not a directory", code="control")
    if found.st_uid not in (os.geteuid(), 0) or found.st_mode & 0o022:
        raise ControlError(
            f"control socket {directory}: the directory is writable for others or not ours",
            code="control",
        )


def _free_name(directory: Path) -> Path:
    """The usual name, or one with our number in it beside a relay that lives."""
    path = directory / SOCKET_NAME
    return directory / f"control-{os.getpid()}.sock" if _exists(path) and is_live(path) else path


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """One starting program at a time may look for a free name."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
