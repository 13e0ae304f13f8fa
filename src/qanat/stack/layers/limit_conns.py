"""How many may be served at once, in all or for each key. To stand outside of expensive work."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from qanat.stack.errors import LimitReached
from qanat.stack.facts import Client, Peer
from qanat.stack.service import Service

__all__ = ["LimitConns", "by_client"]

In = TypeVar("In")
Out = TypeVar("Out")

Key = Callable[[Any], Hashable]


def by_client(asked: Any) -> Hashable:
    """The client's address; for IPv6 its network of 64 bits, which one user has as a whole."""
    source = asked.ext.get(Client) or asked.ext.get(Peer)
    ip = None if source is None else source.address.ip
    if ip is None or ip.version == 4:
        return ip
    return ip.ipv4_mapped or int(ip) >> 64


@dataclass(frozen=True, slots=True)
class LimitConns:
    """At most ``count`` at once; more are refused, or wait for up to ``wait`` seconds.

    With a ``key`` the limit is for each value of it. None does nothing. The limit is per process.
    """

    count: int | None
    wait: float | None = None
    key: Key | None = None
    waiting: int = 1024
    """How many wait at most, for each key."""

    def __call__(self, inner: Service[In, Out], /) -> Service[In, Out]:
        return inner if self.count is None else _Limited(self.count, self, inner)


@dataclass(slots=True)
class _Places:
    used: int = 0
    queue: deque[asyncio.Future[None]] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class _Limited(Generic[In, Out]):
    count: int
    layer: LimitConns
    inner: Service[In, Out]
    # What is in use now; a key without anything in use is not kept.
    places: dict[Hashable, _Places] = field(default_factory=dict, repr=False, compare=False)

    async def __call__(self, asked: In, /) -> Out:
        key = None if self.layer.key is None else self.layer.key(asked)
        places = self.places.setdefault(key, _Places())
        if places.used < self.count:
            places.used += 1
        else:
            await self._place(places)
        try:
            return await self.inner(asked)
        finally:
            self._leave(key, places)

    async def _place(self, places: _Places) -> None:
        wait = self.layer.wait
        if wait is None or len(places.queue) >= self.layer.waiting:
            raise LimitReached(f"{self.count} at once are served already")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        places.queue.append(waiter)
        try:
            async with asyncio.timeout(wait):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                # The place was given in the same turn: it goes to the next one.
                self._pass_on(places)
            else:
                with suppress(ValueError):
                    places.queue.remove(waiter)
            if isinstance(error, TimeoutError):
                raise LimitReached(
                    f"{self.count} at once are served already, for {wait:g} s"
                ) from error
            raise

    def _pass_on(self, places: _Places) -> None:
        while places.queue:
            waiter = places.queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        places.used -= 1

    def _leave(self, key: Hashable, places: _Places) -> None:
        self._pass_on(places)
        if not places.used and not places.queue:
            self.places.pop(key, None)
