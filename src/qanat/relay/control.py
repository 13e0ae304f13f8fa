"""The control socket of a running relay: where it stands, and what can be asked of it.

Routes turn requests into calls on whatever is controlled (an interface of a dozen methods) and
their results into JSON. No signal, no configuration, no engine is known here.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

from qanat.errors import ConfigError, ControlError, Problem, QanatError
from qanat.observe.control import SOCKET_NAME, is_live, own_directory
from qanat.observe.http import Handler, Request, Response, json_response
from qanat.relay.difference import Report

__all__ = ["ControlSocket", "Controlled", "control_routes", "metrics_routes"]

_Result = TypeVar("_Result")


class Controlled(Protocol):
    """What the control socket controls. The methods that take time are called in a thread."""

    def flows(self) -> list[dict[str, Any]]: ...

    def endpoints(self) -> list[dict[str, Any]]: ...

    def stats(self) -> dict[str, Any]: ...

    def about(self) -> dict[str, Any]: ...

    def metrics(self) -> Response: ...

    def kill(self, flow: int) -> bool: ...

    async def reload(self) -> Report:
        """:raises QanatError: nothing was changed."""

    def stop(self, *, now: bool) -> int:
        """Begin to stop; how many flows there are still."""


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


def control_routes(controlled: Controlled) -> Handler:
    """What the control socket answers."""

    async def answer(request: Request) -> Response:
        match request.method, [part for part in request.path.split("/") if part]:
            case "GET", ["flows"]:
                return json_response(_chosen(await _aside(controlled.flows), request.query))
            case "GET", ["endpoints"]:
                return json_response(await _aside(controlled.endpoints))
            case "GET", ["stats"]:
                return json_response(await _aside(controlled.stats))
            case "GET", ["version"]:
                return json_response(controlled.about())
            case "GET" | "HEAD", ["metrics"]:
                return await _aside(controlled.metrics)
            case "POST", ["flows", number, "kill"]:
                return _kill(controlled, number)
            case "POST", ["reload"]:
                return json_response(asdict(await controlled.reload()))
            case "POST", ["stop"]:
                now = request.query.get("now", "false").lower() in ("1", "true", "yes")
                return json_response({"flows": controlled.stop(now=now)})
            case _, [
                "flows" | "endpoints" | "stats" | "version" | "metrics" | "reload" | "stop",
                *_,
            ]:
                return _no(405, "method", f"{request.path} does not answer {request.method}")
            case _:
                return _no(404, "path", f"there is no {request.path}")

    async def guarded(request: Request) -> Response:
        try:
            return await answer(request)
        except ConfigError as error:
            problems = [_plain(problem) for problem in error.problems]
            return _no(422, error.code, str(error), problems=problems)
        except QanatError as error:
            return _no(409, error.code, str(error))

    return guarded


def metrics_routes(controlled: Controlled) -> Handler:
    """What the metrics address answers: it may stand in a network, so nothing but metrics."""

    async def answer(request: Request) -> Response:
        if request.path not in ("/metrics", "/"):
            return _no(404, "path", "metrics are at /metrics")
        if request.method not in ("GET", "HEAD"):
            return _no(405, "method", "only GET")
        return await _aside(controlled.metrics)

    return answer


async def _aside(call: Callable[[], _Result]) -> _Result:
    """In a thread: thousands of flows as JSON take long enough to make others wait."""
    return await asyncio.to_thread(call)


def _kill(controlled: Controlled, number: str) -> Response:
    if not number.isascii() or not number.isdigit() or len(number) > 20:
        return _no(400, "flow", f"{number[:40]} is no flow's number")
    if controlled.kill(int(number)):
        return json_response({"killed": int(number)})
    return _no(404, "flow", f"there is no flow {number}")


def _chosen(flows: list[dict[str, Any]], query: Mapping[str, str]) -> list[dict[str, Any]]:
    endpoint, client = query.get("endpoint"), query.get("client")
    if endpoint is not None:
        flows = [flow for flow in flows if flow["endpoint"] == endpoint]
    if client is not None:
        host = client.strip("[]")
        flows = [
            flow for flow in flows if client == flow["client"] or host == _host(flow["client"])
        ]
    return flows


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _no(status: int, code: str, message: str, **more: object) -> Response:
    return json_response({"error": code, "message": message, **more}, status)


def _plain(problem: Problem) -> dict[str, Any]:
    return {
        "message": problem.message,
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "key": problem.key,
        "hint": problem.hint,
        "text": str(problem),
    }
