"""Bytes a second of messages that Python forwards: by the same limits as what the engine moves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from qanat.stack.courier import Courier

__all__ = ["Pace"]


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
