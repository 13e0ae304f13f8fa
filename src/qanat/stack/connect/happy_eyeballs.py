"""Racing the addresses of a name (RFC 8305): the next one starts when the one before takes long or
has failed; the first connection wins and the others are given up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final

from qanat.stack.connect.attempts import none_reached
from qanat.stack.connect.target import Connector, ConnectTo
from qanat.stack.errors import ConnectError
from qanat.stack.stream.base import Stream

__all__ = ["HappyEyeballs"]

_GIVE_UP_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class HappyEyeballs:
    """A connector layer. ``delay`` is the time an attempt has before the next one starts beside it
    (RFC 8305 section 5 recommends a quarter of a second)."""

    delay: float = 0.25
    most: int = 16
    """Addresses that are tried at most."""

    def __call__(self, inner: Connector, /) -> Connector:
        return _Racing(self.delay, self.most, inner)


@dataclass(frozen=True, slots=True)
class _Racing:
    delay: float
    most: int
    inner: Connector

    def __call__(self, asked: ConnectTo, /) -> Awaitable[Stream]:
        if asked.candidates is None or len(asked.candidates) < 2:
            return self.inner(asked)
        return self._race(asked)

    async def _race(self, asked: ConnectTo) -> Stream:
        loop = asyncio.get_running_loop()
        to_try = list(reversed((asked.candidates or ())[: self.most]))
        running: set[asyncio.Task[Stream]] = set()
        errors: list[ConnectError] = []
        try:
            while to_try or running:
                if to_try:
                    candidate = to_try.pop()
                    one = asked.with_candidates((candidate,))
                    running.add(loop.create_task(self._attempt(one), name=f"connect {candidate}"))
                due = loop.time() + self.delay
                while running:
                    left = max(0.0, due - loop.time()) if to_try else None
                    done, _ = await asyncio.wait(
                        running, timeout=left, return_when=asyncio.FIRST_COMPLETED
                    )
                    if not done:
                        break
                    failed = False
                    for attempt in done:
                        error = attempt.exception()
                        if error is None:
                            running.discard(attempt)
                            return attempt.result()
                        running.discard(attempt)
                        if not isinstance(error, ConnectError):
                            raise error
                        errors.append(error)
                        failed = True
                    if failed and to_try:
                        break
            raise none_reached(asked.target, errors)
        finally:
            await _give_up(running)

    async def _attempt(self, asked: ConnectTo) -> Stream:
        return await self.inner(asked)


async def _give_up(attempts: set[asyncio.Task[Stream]]) -> None:
    if not attempts:
        return
    for attempt in attempts:
        attempt.add_done_callback(_drop)
        attempt.cancel()
    # They end at their next step; the callback sees to those that don't within this time.
    await asyncio.wait(attempts, timeout=_GIVE_UP_SECONDS)


def _drop(attempt: asyncio.Task[Stream]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()
