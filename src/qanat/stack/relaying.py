"""Moving bytes between two streams until both directions have ended.

Half-close is carried over, a reset of one side resets the other, and nothing is truncated when one
side answers and closes while the other still sends. Where nothing in Python needs the bytes, both
sockets are handed down to the engine; else they are moved here, with the same outcome and the same
report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from qanat.stack.bridge import Bridge
from qanat.stack.errors import StackError, StreamBroken
from qanat.stack.lowering import LoweredFlow, lowered
from qanat.stack.push import SideBroken, push
from qanat.stack.stream.base import CHUNK, Stream
from qanat.stack.stream.sockets import SocketStream

__all__ = ["Relay", "RelayReport", "relay"]


@dataclass(frozen=True, slots=True)
class RelayReport:
    """How it went. Up is from the client to the target."""

    reason: str
    """A word of ``qanat.observe.reasons``, the same for flows that the engine moved."""
    detail: str | None
    bytes_up: int
    bytes_down: int
    seconds: float
    lowered: bool
    """Whether the engine moved the bytes."""


@dataclass(frozen=True, slots=True)
class Relay:
    """The service: from a bridge to a report. Times are seconds; None is no limit."""

    idle: float | None = None
    """Without a byte in either direction."""
    linger: float | None = None
    """Without progress after one side has ended."""
    lower: bool = True
    """Whether the engine may move the bytes."""

    def __call__(self, bridge: Bridge, /) -> Awaitable[RelayReport]:
        # Not a coroutine of its own: for a flow at rest, frames are most of what Python holds.
        return relay(
            bridge.client, bridge.upstream, idle=self.idle, linger=self.linger, lower=self.lower
        )


async def relay(
    client: Stream,
    upstream: Stream,
    *,
    idle: float | None = None,
    linger: float | None = None,
    lower: bool = True,
) -> RelayReport:
    """Join two streams until both have ended; both are closed then.

    What was read and put back goes first. Peers that reset are a normal end, told in the report.
    Cancelled, it resets both sides.
    """
    if lower:
        flow = await lowered(client, upstream, idle, linger)
        if isinstance(flow, LoweredFlow):
            try:
                ended = await flow.ending
            except asyncio.CancelledError:
                flow.cut()
                raise
            return RelayReport(
                ended.reason, ended.detail, ended.up, ended.down, ended.seconds, lowered=True
            )
        client, upstream = flow
    moving = _Moving(client, upstream, idle, linger)
    try:
        if isinstance(client, SocketStream) and isinstance(upstream, SocketStream):
            await moving.run(lambda: push(client, upstream, moving.passed, moving.side_ended))
        else:
            await moving.run(moving.pull)
    except BaseException:
        client.abort()
        upstream.abort()
        raise
    return moving.report()


class _Moving:
    """One flow that Python moves: its counts, its clocks, and why it ended."""

    __slots__ = (
        "_began",
        "_client",
        "_down",
        "_first",
        "_idle",
        "_last",
        "_linger",
        "_loop",
        "_over",
        "_reason",
        "_suspect",
        "_up",
        "_upstream",
    )

    def __init__(
        self, client: Stream, upstream: Stream, idle: float | None, linger: float | None
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._idle = idle or None
        self._linger = linger or None
        self._loop = asyncio.get_running_loop()
        self._began = self._last = self._loop.time()
        self._up = 0
        self._down = 0
        self._first = ""
        """Which side ended first: ``client`` or ``target``."""
        self._over = {True: False, False: False}
        """Whether the direction up (True), or down, has ended in order."""
        self._suspect: dict[bool, StackError | None] = {True: None, False: None}
        """By direction: why its source took nothing any more. If that ends without a further word,
        it broke."""
        self._reason: tuple[str, str | None] | None = None

    def passed(self, up: bool, count: int) -> None:
        """Bytes were accepted on the other side."""
        if up:
            self._up += count
        else:
            self._down += count
        self._last = self._loop.time()

    def side_ended(self, up: bool) -> None:
        """The end of one direction was carried over."""
        self._over[up] = True
        if not self._first:
            self._first = "client" if up else "target"
        self._last = self._loop.time()

    async def run(self, move: Callable[[], object]) -> None:
        """Until both directions have ended, an error, or a time limit."""
        if self._idle is None and self._linger is None:
            await self._to_the_end(move)
            return
        timer: asyncio.TimerHandle | None = None
        try:
            async with asyncio.timeout(None) as limit:

                def look() -> None:
                    nonlocal timer
                    now, due = self._loop.time(), self._due()
                    if due is not None and due <= now:
                        limit.reschedule(now)
                        return
                    timer = self._loop.call_later((due or now + 1.0) - now, look)

                look()
                await self._to_the_end(move)
        except TimeoutError:
            if self._reason is None:
                half = bool(self._first)
                self._reason = ("linger_timeout" if half else "idle_timeout", None)
            self._abort()
        finally:
            if timer is not None:
                timer.cancel()

    def _due(self) -> float | None:
        limits = [self._idle, self._linger if self._first else None]
        set_limits = [limit for limit in limits if limit is not None]
        # While only linger is set, the first side may end at any time.
        return self._last + min(set_limits) if set_limits else None

    async def _to_the_end(self, move: Callable[[], object]) -> None:
        try:
            await move()  # type: ignore[misc]  # an awaitable, of either way to move
        except SideBroken as broken:
            self._broken(broken.client, broken.error)
        else:
            self._reason = (f"{self._first or 'client'}_closed", None)
            await self._client.aclose()
            await self._upstream.aclose()

    def _broken(self, client: bool, error: BaseException) -> None:
        side = "client" if client else "target"
        if isinstance(error, StreamBroken):
            self._reason = (f"{side}_reset", None if error.reset else str(error))
        else:
            self._reason = ("error", f"{side}: {error}")
        self._abort()

    def _abort(self) -> None:
        self._client.abort()
        self._upstream.abort()

    async def pull(self) -> None:
        """For any streams: read and write, one task for each direction."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._direction(self._client, self._upstream, True))
                group.create_task(self._direction(self._upstream, self._client, False))
        except BaseExceptionGroup as errors:
            first: BaseException = errors
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise first from None

    async def _direction(self, source: Stream, sink: Stream, up: bool) -> None:
        wanted = True
        while True:
            try:
                data = await source.read(CHUNK)
            except StackError as error:
                raise SideBroken(up, error) from error
            if not data:
                if (suspect := self._suspect[up]) is not None:
                    raise SideBroken(up, suspect)
                break
            self._suspect[up] = None
            if not wanted:
                continue
            try:
                await sink.write(data)
            except StackError as error:
                # It takes no more, but its last words may still be on their way, which a reset of
                # the other side would take away. The other direction finds out.
                wanted = False
                if not self._over[not up]:
                    self._suspect[not up] = error
                continue
            self.passed(up, len(data))
        if not wanted:
            self.side_ended(up)
            return
        try:
            # Where one direction can't end alone, the end of the whole follows the other one.
            if sink.can_half_close:
                await sink.write_eof()
        except StackError as error:
            if not self._over[not up]:
                self._suspect[not up] = error
        self.side_ended(up)

    def report(self) -> RelayReport:
        reason, detail = self._reason or ("error", None)
        return RelayReport(
            reason, detail, self._up, self._down, self._loop.time() - self._began, lowered=False
        )
