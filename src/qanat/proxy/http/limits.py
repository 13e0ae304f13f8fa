"""What users may have whose requests are forwarded: connections, and bytes a second by the same
limits as what the engine moves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from qanat.stack.courier import Courier
from qanat.stack.extensions import Extensions

__all__ = ["Pace", "UserLimits"]


@dataclass(slots=True)
class Pace:
    courier: Courier
    keys: tuple[str, ...]
    """Names of the limits."""
    _even: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """When what went is paid for, up and down."""

    async def up(self, count: int) -> None:
        """Bytes are about to go: returns when they may. They are owed from then on, so that nobody
        waits behind the last of them."""
        await self._wait(0)
        self._owe(0, [self.courier.spend(key, count, 0) for key in self.keys])

    async def down(self, count: int) -> None:
        await self._wait(1)
        self._owe(1, [self.courier.spend(key, 0, count) for key in self.keys])

    async def _wait(self, way: int) -> None:
        seconds = self._even[way] - self.courier.now()
        if seconds > 0:
            await asyncio.sleep(seconds)

    def _owe(self, way: int, seconds: list[float]) -> None:
        self._even[way] = self.courier.now() + max(seconds, default=0.0)


class UserLimits(Protocol):
    """What users may have, by their names."""

    async def rates(self, name: str, /) -> tuple[str, ...]:
        """Names of the limits on bytes a second that hold for them."""

    def begin(self, name: str, ext: Extensions, /) -> None:
        """One more connection of theirs, with what is known of it.

        :raises ConnectError: of kind ``limit``.
        """

    def end(self, name: str, ext: Extensions, /) -> None:
        """One less."""
