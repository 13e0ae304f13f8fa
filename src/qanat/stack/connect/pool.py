"""Connections that wait to be used again.

What is handed out has nothing to read: a peer that has ended or that speaks out of turn is not one
to send a request to. Every stream in here belongs to the pool, every one handed out to the taker.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from qanat.stack.errors import StackError
from qanat.stack.stream.base import Stream
from qanat.stack.stream.sockets import SocketStream

__all__ = ["Pool"]

Key = TypeVar("Key", bound=Hashable)

_LOOK_SECONDS: Final = 5.0
"""How often connections are looked at whose peer may have ended them."""


class _Kept(Generic[Key]):
    __slots__ = ("key", "stream", "until", "watch")

    def __init__(self, key: Key, stream: Stream, until: float) -> None:
        self.key = key
        self.stream = stream
        self.until = until
        self.watch: asyncio.Task[None] | None = None


class Pool(Generic[Key]):
    """Idle connections by key: the route, and whose they are. The one used last is taken first.

    ``idle`` seconds each, ``per_key`` and ``total`` in number; the oldest goes first when there are
    too many. An async context manager, of one event loop.
    """

    def __init__(self, *, idle: float = 60.0, per_key: int = 32, total: int = 1024) -> None:
        self._seconds = idle
        self._per_key = per_key
        self._total = total
        self._kept: OrderedDict[int, _Kept[Key]] = OrderedDict()
        """The oldest first, by ids of the entries."""
        self._of: dict[Key, list[_Kept[Key]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._watches: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: Key, stream: Stream) -> None:
        """The pool owns the stream from now on. It must be idle, at the end of an exchange."""
        if self._closed or self._total < 1 or self._per_key < 1 or not _quiet(stream):
            _end(stream)
            return
        loop = asyncio.get_running_loop()
        same = self._of.setdefault(key, [])
        if len(same) >= self._per_key:
            self._drop(same[0])
            same = self._of.setdefault(key, [])
        while len(self._kept) >= self._total:
            self._drop(next(iter(self._kept.values())))
            same = self._of.setdefault(key, [])
        kept = _Kept(key, stream, loop.time() + self._seconds)
        same.append(kept)
        self._kept[id(kept)] = kept
        if not isinstance(stream, SocketStream):
            kept.watch = loop.create_task(self._watch(kept), name="idle connection")
            self._watches.add(kept.watch)
            kept.watch.add_done_callback(self._watches.discard)
        if self._timer is None:
            self._timer = loop.call_later(min(self._seconds, _LOOK_SECONDS), self._look)

    async def take(self, key: Key) -> Stream | None:
        """One that can be used, or None. The caller owns it then."""
        now = asyncio.get_running_loop().time()
        while same := self._of.get(key):
            kept = same[-1]
            self._forget(kept)
            stream = kept.stream
            if kept.watch is not None:
                kept.watch.cancel()
                try:
                    await asyncio.wait({kept.watch})
                except asyncio.CancelledError:
                    _end(stream)
                    raise
                if not kept.watch.cancelled():
                    _end(stream)
                    continue
            if kept.until > now and _quiet(stream):
                return stream
            _end(stream)
        return None

    async def _watch(self, kept: _Kept[Key]) -> None:
        """For streams that can't be asked without waiting."""
        with suppress(StackError):
            await kept.stream.peek()
        if id(kept) in self._kept:
            kept.watch = None
            self._drop(kept)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for kept in list(self._kept.values()):
            if kept.until <= now or (kept.watch is None and not _quiet(kept.stream)):
                self._drop(kept)
        self._timer = None
        if self._kept:
            self._timer = loop.call_later(min(self._seconds, _LOOK_SECONDS), self._look)

    def _forget(self, kept: _Kept[Key]) -> None:
        self._kept.pop(id(kept), None)
        same = self._of[kept.key]
        same.remove(kept)
        if not same:
            del self._of[kept.key]

    def _drop(self, kept: _Kept[Key]) -> None:
        self._forget(kept)
        if kept.watch is not None:
            kept.watch.cancel()
        _end(kept.stream)

    async def aclose(self) -> None:
        """End all that wait; what is put back later ends at once."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for kept in list(self._kept.values()):
            self._drop(kept)
        if self._watches:
            await asyncio.wait(set(self._watches), timeout=1.0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def _quiet(stream: Stream) -> bool:
    """Whether nothing is there to be read, the peer's end included. Streams without a socket are
    watched instead."""
    if not isinstance(stream, SocketStream):
        return True
    if stream.closed or stream.ended or stream.finished or stream._unread:
        return False
    try:
        stream.raw.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return True
    except OSError:
        return False
    return False


def _end(stream: Stream) -> None:
    """Without waiting: nothing is on its way in either direction."""
    if isinstance(stream, SocketStream) and not stream.closed:
        try:
            stream.detach().socket.close()
        except StackError:
            stream.abort()
        return
    stream.abort()
