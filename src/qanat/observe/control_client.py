"""Asking a running program, without asyncio: a request, an answer.

The commands use this and nothing else of a program. What goes wrong is a ControlError that says
what to do about it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from qanat.errors import ControlError
from qanat.observe.control import find_socket

__all__ = ["ControlClient"]


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
