"""What can be asked of a running program through its control socket.

Routes turn requests into calls on whatever is controlled (an interface of a dozen methods) and
their results into JSON. No signal, no configuration, no engine is known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Protocol, TypeVar

from qanat.errors import ConfigError, Problem, QanatError
from qanat.observe.http import Handler, Request, Response, json_response

__all__ = ["Controlled", "Reloaded", "control_routes", "metrics_routes"]

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of a reload."""

    report: object
    """A dataclass: what has changed, in a sentence as text and in full as fields."""
    warnings: tuple[str, ...] = ()


class Controlled(Protocol):
    """What the control socket controls. The methods that take time are called in a thread."""

    def flows(self) -> list[dict[str, Any]]: ...

    def endpoints(self) -> list[dict[str, Any]]: ...

    def stats(self) -> dict[str, Any]: ...

    def about(self) -> dict[str, Any]: ...

    def metrics(self) -> Response: ...

    def kill(self, flow: int) -> bool: ...

    async def reload(self) -> Reloaded:
        """:raises QanatError: nothing was changed."""

    def stop(self, *, now: bool) -> int:
        """Begin to stop; how many flows there are still."""


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
                return await _aside(lambda: _kill(controlled, number))
            case "POST", ["reload"]:
                done = await controlled.reload()
                return json_response({**_fields(done.report), "warnings": done.warnings})
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


def _fields(report: object) -> dict[str, Any]:
    if not is_dataclass(report) or isinstance(report, type):
        raise TypeError(f"{report!r} is no report")
    return asdict(report)


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
