"""Asking a running program: where its control socket is, and a plain client for it.

The commands use this and nothing else of a program. No asyncio, no relay: a request, an answer.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from qanat.errors import ControlError

__all__ = [
    "SOCKET_NAME",
    "ControlClient",
    "find_socket",
    "is_live",
    "own_directory",
    "possible_directories",
]

SOCKET_NAME: Final = "control.sock"
_SYSTEM: Final = Path("/run/qanat")


def own_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Where a program started by us puts its socket."""
    return possible_directories(environ)[0]


def possible_directories(environ: Mapping[str, str] | None = None) -> list[Path]:
    """Where sockets may be, our own place first.

    A service manager's choice comes first (RUNTIME_DIRECTORY), then ``/run/qanat`` for root and the
    runtime directory of the session for others; without one a directory of ours in /tmp.
    """
    environ = os.environ if environ is None else environ
    places = []
    if given := environ.get("RUNTIME_DIRECTORY"):
        places.append(Path(given.split(":")[0]))
    if os.geteuid() == 0:
        places.append(_SYSTEM)
    elif session := environ.get("XDG_RUNTIME_DIR"):
        places += [Path(session, "qanat"), _SYSTEM]
    else:
        places += [Path(f"/tmp/qanat-{os.geteuid()}"), _SYSTEM]  # noqa: S108 - checked when made
    return places


def is_live(path: Path) -> bool:
    """Whether somebody listens there. A socket that we may not ask counts as live."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(2.0)
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


def find_socket(environ: Mapping[str, str] | None = None) -> Path:
    """The socket of the only program that runs here.

    :raises ControlError: there is none, or there are several to choose from.
    """
    live = []
    denied = []
    for directory in possible_directories(environ):
        for path in _sockets(directory):
            if not os.access(path, os.W_OK):
                denied.append(path)
            elif is_live(path):
                live.append(path)
    if len(live) == 1:
        return live[0]
    if live:
        names = "".join(f"\n  {path}" for path in live)
        raise ControlError(
            f"several relays are running; choose one with --control PATH:{names}", code="several"
        )
    if denied:
        raise ControlError(f"no permission to use {denied[0]}", code="denied")
    raise ControlError(
        "no relay is running (or it was started with --control off)", code="not_running"
    )


def _sockets(directory: Path) -> list[Path]:
    try:
        found = sorted(directory.glob("control*.sock"))
    except OSError:
        return []
    return [path for path in found if _is_socket(path)]


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


class ControlClient:
    """One connection to one running program, kept for several questions."""

    def __init__(self, path: Path, *, timeout: float = 30.0) -> None:
        self.path = path
        self._connection = _UnixConnection(path, timeout)

    @classmethod
    def to(cls, path: str | os.PathLike[str] | None, *, timeout: float = 30.0) -> ControlClient:
        """The program behind ``path``, or the only one running."""
        return cls(Path(path) if path is not None else find_socket(), timeout=timeout)

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def get(self, path: str, **query: str | None) -> Any:
        """The JSON answer. :raises ControlError: no answer, or one that says no."""
        return self._ask("GET", path, query)

    def post(self, path: str, **query: str | None) -> Any:
        return self._ask("POST", path, query)

    def _ask(self, method: str, path: str, query: Mapping[str, str | None]) -> Any:
        words = urlencode({key: value for key, value in query.items() if value is not None})
        target = f"{path}?{words}" if words else path
        try:
            status, body = self._exchange(method, target)
        except TimeoutError as error:
            raise ControlError(f"{self.path}: no answer in time", code="answer") from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ControlError(
                f"{self.path}: no relay is running there", code="not_running"
            ) from error
        except PermissionError as error:
            raise ControlError(f"no permission to use {self.path}", code="denied") from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise ControlError(f"{self.path}: {reason}", code="answer") from error
        return self._understood(status, body)

    def _exchange(self, method: str, target: str) -> tuple[int, bytes]:
        kept = self._connection.sock is not None
        try:
            return self._once(method, target)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # A kept connection may have been closed for its silence; a fresh one has no excuse.
            self.close()
            if not kept or method != "GET":
                raise
            return self._once(method, target)

    def _once(self, method: str, target: str) -> tuple[int, bytes]:
        self._connection.request(method, target)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def _understood(self, status: int, body: bytes) -> Any:
        try:
            answer = json.loads(body)
        except ValueError:
            text = body.decode("utf-8", "replace").strip()
            raise ControlError(f"{self.path}: {status} {text[:200]}", code="answer") from None
        if status < 400:
            return answer
        with contextlib.suppress(KeyError, TypeError):
            raise ControlError(str(answer["message"]), code=str(answer["error"]))
        raise ControlError(f"{self.path}: answered {status}", code="answer")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._patience = timeout

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(self._patience)
            sock.connect(str(self._path))
        except BaseException:
            sock.close()
            raise
        self.sock = sock
