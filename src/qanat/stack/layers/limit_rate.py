"""How many a second, in all or for each key. To stand outside of ``LimitConns``, so that those who
wait here hold no place there."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from qanat.stack.bucket import Bucket
from qanat.stack.errors import LimitReached
from qanat.stack.layers.limit_conns import Key
from qanat.stack.service import Service

__all__ = ["LimitRate"]

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class LimitRate:
    """``rate`` a second, bursts of ``burst``; more are refused, with the time to come back.

    With a ``key`` the limit is for each value of it. ``table`` keys are known at once: beyond that
    new ones are refused, since to forget an old one would lift its limit. A key that has rested
    long enough to have its whole burst again is not kept. None does nothing.
    """

    rate: float | None
    burst: float = 1.0
    key: Key | None = None
    table: int = 65_536

    def __call__(self, inner: Service[In, Out], /) -> Service[In, Out]:
        return inner if self.rate is None else _Limited(self.rate, self, inner)


@dataclass(frozen=True, slots=True)
class _Limited(Generic[In, Out]):
    rate: float
    layer: LimitRate
    inner: Service[In, Out]
    buckets: dict[Hashable, Bucket] = field(default_factory=dict, repr=False, compare=False)

    async def __call__(self, asked: In, /) -> Out:
        now = asyncio.get_running_loop().time()
        key = None if self.layer.key is None else self.layer.key(asked)
        bucket = self.buckets.get(key)
        if bucket is None:
            if len(self.buckets) >= self.layer.table:
                self._forget_rested(now)
                if len(self.buckets) >= self.layer.table:
                    raise LimitReached(f"more than {self.layer.table} are being counted")
            bucket = self.buckets[key] = Bucket(self.rate, self.layer.burst, now)
        if not bucket.take(1, now):
            raise LimitReached(
                f"more than {self.rate:g} a second", retry_after=bucket.seconds_until(1, now)
            )
        return await self.inner(asked)

    def _forget_rested(self, now: float) -> None:
        rested = [key for key, bucket in self.buckets.items() if bucket.is_full(now)]
        for key in rested:
            del self.buckets[key]
