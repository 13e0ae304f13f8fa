"""What users may have whose requests are forwarded: connections, and bytes a second by the same
limits as what the engine moves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from qanat.stack.courier import Courier
from qanat.stack.extensions import Extensions

__all__ = ["Pace", "UserLimits"]


@dataclass(frozen=True, slots=True)
class Pace:
    courier: Courier
    keys: tuple[str, ...]
    """Names of the limits."""

    async def spent(self, up: int, down: int) -> None:
        """So many bytes have gone: returns when more may."""
        seconds = max((self.courier.spend(key, up, down) for key in self.keys), default=0.0)
        if seconds > 0:
            await asyncio.sleep(seconds)


class UserLimits(Protocol):
    """What users may have, by their names."""

    async def rates(self, name: str, /) -> tuple[str, ...]:
        """Names of the limits on bytes a second that hold for them."""

    def begin(self, name: str, ext: Extensions, /) -> None:
        """One more connection of theirs, with what is known of it.

        :raises ConnectError: of kind ``limit``.
        """

    def end(self, name: str, /) -> None:
        """One less."""
