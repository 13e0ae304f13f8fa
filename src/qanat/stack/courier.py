"""What carries flows of one event loop into the engine and brings word of them back.

One for each loop, made at the first need and gone with the loop. It owns a group of the engine, a
desk in it, and knows who waits for which report.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from qanat.engine import Group, open_group
from qanat.errors import EngineClosed
from qanat.plan import LimitsPlan
from qanat.stack.errors import StackError

if TYPE_CHECKING:
    from qanat._engine import Desk

__all__ = ["Courier", "Ended", "EngineRefused", "Left", "courier"]

Callback = Callable[[str, str], None]

_LAST: Final = frozenset({"ended", "failed", "closed"})
"""Kinds after which nothing is reported about a handle any more."""

_logger = logging.getLogger("qanat.stack")


class EngineRefused(StackError):
    """The engine does not take a socket or a flow; whoever asked still has what it gave."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message, code=code)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a flow ended: a word of ``qanat.observe.reasons``, and what passed."""

    reason: str
    detail: str | None
    up: int
    down: int
    seconds: float

    @classmethod
    def from_report(cls, text: str) -> Ended:
        told: dict[str, Any] = json.loads(text) if text else {}
        return cls(
            told.get("reason", "shutdown"),
            told.get("detail"),
            told.get("up", 0),
            told.get("down", 0),
            told.get("seconds", 0.0),
        )


@dataclass(frozen=True, slots=True)
class Left:
    """What an exchange of messages leaves at its end."""

    client_fd: int
    upstream_fd: int
    """Whose they are now; -1 for what has ended."""
    unread: bytes
    """Read from the client, and not gone on."""
    asked: bytes
    """The head of a request that has gone on and was not answered."""
    answered: bytes
    """What has come of the answer."""
    why: str
    requests: int
    """How many were answered."""
    up: int
    """Bytes of the unanswered request that have gone on."""

    def close(self) -> None:
        for fd in (self.client_fd, self.upstream_fd):
            if fd >= 0:
                os.close(fd)


class Courier:
    """Belongs to one event loop and is used on it alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from qanat._engine import EngineError

        self._loop = loop
        self._error = EngineError
        self.group: Group = open_group(LimitsPlan(), _noted)
        try:
            self.desk: Desk = self.group.desk()
        except BaseException:
            self.group.leave()
            raise
        self._watching: dict[int, Callback] = {}
        self._waiting: dict[int, asyncio.Future[Ended]] = {}
        self._endpoints: dict[tuple[str, str], int] = {}
        self._closed = False
        self._until_loop_ends: AsyncGenerator[None] | None = None
        loop.add_reader(self.desk.fileno(), self._deliver)

    @property
    def closed(self) -> bool:
        return self._closed

    def now(self) -> float:
        """By the clock of the loop."""
        return self._loop.time()

    def endpoint(self, name: str, listen: str = "") -> int:
        """The row of the engine's flow list and statistics by this name."""
        key = (name, listen)
        found = self._endpoints.get(key)
        if found is None:
            with self.translated():
                found = self._endpoints[key] = self.desk.endpoint(name, listen)
        return found

    def watch(self, handle: int, callback: Callback, /) -> None:
        """Call back with kind and JSON for every report about this handle, in order; ``closed`` is
        the last one when the courier ends first."""
        self._watching[handle] = callback

    def forget(self, handle: int, /) -> None:
        """Nobody wants to know of it any more."""
        self._watching.pop(handle, None)

    def lower(
        self,
        client_fd: int,
        target_fd: int,
        plan: str,
        unread_client: bytes,
        unread_target: bytes,
    ) -> tuple[int, asyncio.Future[Ended]]:
        """Hand two sockets down: the flow's number, and how it ends.

        :raises EngineRefused: the descriptors are still the caller's.
        """
        try:
            flow = self.desk.lower(client_fd, target_fd, plan, unread_client, unread_target)
        except self._error as error:
            raise EngineRefused(str(error), error.code) from error
        return flow, self.ending(flow)

    def exchange(
        self,
        client_fd: int,
        upstream_fd: int,
        plan: str,
        unread: bytes,
        told: Callback | None,
    ) -> tuple[int, asyncio.Future[Ended]]:
        """Hand two sockets down whose messages are to be exchanged; ``told`` is called as by
        :meth:`watch`.

        :raises EngineRefused: the descriptors are still the caller's.
        """
        with self.translated():
            flow = self.desk.exchange(client_fd, upstream_fd, plan, unread)
        if told is not None:
            self.watch(flow, told)
        return flow, self.ending(flow)

    def recover(self, flow: int) -> Left | None:
        """What an exchange has left that has ended; nothing if it was cut."""
        self.forget(flow)
        left = self.desk.recover(flow)
        return None if left is None else Left(*left)

    def ending(self, flow: int) -> asyncio.Future[Ended]:
        """How a flow ends that was begun just now, before the loop turned."""
        future = self._waiting[flow] = self._loop.create_future()
        return future

    def cut(self, flow: int) -> None:
        """End a flow now; nothing happens if it has ended."""
        try:
            self.desk.cut(flow)
        except self._error:
            return

    def set_rates(self, name: str, up: float | None, down: float | None) -> None:
        """Limit all flows that name this key together, in bytes a second."""
        with self.translated():
            self.desk.set_rates(name, up, down)

    def spend(self, name: str, up: int, down: int) -> float:
        """Bytes were moved here under the limits of this key: how many seconds to wait before more
        are."""
        return self.desk.spend(name, up, down)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """The engine's errors as EngineRefused."""
        try:
            yield
        except self._error as error:
            # Those who make stacks know no endpoints.
            text = str(error).replace("listen_transport.", "").replace("remote_transport.", "")
            raise EngineRefused(text, error.code) from error

    def close(self) -> None:
        """Cut the flows and give the engine back; idempotent."""
        if self._closed:
            return
        self._closed = True
        _couriers.pop(self._loop, None)
        if not self._loop.is_closed():
            self._loop.remove_reader(self.desk.fileno())
        self.desk.shutdown()
        self._deliver()
        self.group.leave()
        for callback in list(self._watching.values()):
            callback("closed", "")
        self._watching.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_result(Ended("shutdown", None, 0, 0, 0.0))
        self._waiting.clear()

    def _deliver(self) -> None:
        try:
            reports = self.desk.take()
        except (self._error, EngineClosed):
            return
        waiting, watching = self._waiting, self._watching
        for handle, kind, text in reports:
            future = waiting.pop(handle, None) if kind in _LAST else None
            if future is not None:
                if not future.done():
                    future.set_result(Ended.from_report(text))
                elif (left := self.recover(handle)) is not None:
                    # Nobody waits for it any more.
                    left.close()
                continue
            callback = watching.get(handle)
            if callback is None:
                continue
            if kind in _LAST:
                del watching[handle]
            try:
                callback(kind, text)
            except Exception:
                _logger.exception("a report of the engine could not be handed on")


def _noted(events: list[dict[str, Any]]) -> None:
    """Flows report to the desk; what the engine remarks besides goes to the log."""
    for event in events:
        if event.get("kind") == "notice":
            # A peer that speaks no TLS is its own mistake.
            mistake = event.get("code") == "client_handshake_failed"
            _logger.log(logging.INFO if mistake else logging.WARNING, "%s", event.get("text"))


_couriers: WeakKeyDictionary[asyncio.AbstractEventLoop, Courier] = WeakKeyDictionary()


async def courier() -> Courier:
    """The courier of the running loop, made at the first call. It ends with the loop, when that
    closes its asynchronous generators (as ``asyncio.run`` does)."""
    loop = asyncio.get_running_loop()
    found = _couriers.get(loop)
    if found is None:
        found = _couriers[loop] = Courier(loop)
        found._until_loop_ends = _ended_with_the_loop(found)
        await anext(found._until_loop_ends)
    return found


async def _ended_with_the_loop(made: Courier) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        made.close()
