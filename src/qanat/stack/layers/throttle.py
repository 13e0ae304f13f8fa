"""Bytes a second of a stream, by reading and writing it slowly: that is what pushes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Generic, TypeVar

from qanat.stack.bucket import Bucket
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream

__all__ = ["Throttle", "ThrottledStream"]

Out = TypeVar("Out")

_PIECE = 16_384


class ThrottledStream(Stream):
    """A stream whose bytes come and go by two buckets, which it may share with others."""

    __slots__ = ("_inner", "_reads", "_writes")

    def __init__(self, inner: Stream, reads: Bucket | None, writes: Bucket | None) -> None:
        super().__init__(inner.ext)
        self._inner = inner
        self._reads = reads
        self._writes = writes

    @property
    def below(self) -> Stream:
        return self._inner

    @property
    def can_half_close(self) -> bool:
        return self._inner.can_half_close

    async def _receive(self, max_bytes: int) -> bytes:
        if self._reads is None:
            return await self._inner.read(max_bytes)
        await _even(self._reads, 0)
        data = await self._inner.read(min(max_bytes, _PIECE))
        self._reads.owe(len(data), asyncio.get_running_loop().time())
        return data

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        if self._writes is None:
            await self._inner.write(data)
            return
        left = memoryview(data)
        while left:
            piece, left = left[:_PIECE], left[_PIECE:]
            await _even(self._writes, len(piece))
            await self._inner.write(piece)

    async def _send_eof(self) -> None:
        await self._inner.write_eof()

    async def _close(self) -> None:
        self._unread = b""
        await self._inner.aclose()

    def abort(self) -> None:
        self._unread = b""
        self._inner.abort()


async def _even(bucket: Bucket, amount: int) -> None:
    seconds = bucket.owe(amount, asyncio.get_running_loop().time())
    if seconds > 0:
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Throttle:
    """``up`` bytes a second from the client and ``down`` to it, for each connection. None is no
    limit. Such a stream stays in Python; flows in the engine are limited by ``Rates``."""

    up: float | None = None
    down: float | None = None
    burst: float = 65_536.0

    def __call__(self, inner: Service[Stream, Out], /) -> Service[Stream, Out]:
        return inner if self.up is None and self.down is None else _Throttled(self, inner)


@dataclass(frozen=True, slots=True)
class _Throttled(Generic[Out]):
    layer: Throttle
    inner: Service[Stream, Out]

    def __call__(self, stream: Stream, /) -> Awaitable[Out]:
        now, layer = asyncio.get_running_loop().time(), self.layer
        reads = None if layer.up is None else Bucket(layer.up, layer.burst, now)
        writes = None if layer.down is None else Bucket(layer.down, layer.burst, now)
        return self.inner(ThrottledStream(stream, reads, writes))
