"""A token bucket: so much a second, with bursts. Pure: time is passed in."""

from __future__ import annotations

__all__ = ["Bucket"]


class Bucket:
    """``rate`` a second, and up to ``burst`` at once after a rest. Begins full."""

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        if not (rate > 0 and burst > 0):
            raise ValueError(f"a bucket needs a rate and a burst above 0, not {rate} and {burst}")
        self.rate: float = rate
        self.burst: float = burst
        self._level = burst
        self._at = now

    def level(self, now: float) -> float:
        """How much there is. Negative: so much was taken in advance."""
        if now > self._at:
            self._level = min(self.burst, self._level + (now - self._at) * self.rate)
            self._at = now
        return self._level

    def take(self, amount: float, now: float) -> bool:
        """Take it if it is there."""
        if self.level(now) < amount:
            return False
        self._level -= amount
        return True

    def owe(self, amount: float, now: float) -> float:
        """Take it in any case; the seconds until the bucket is even again."""
        level = self.level(now) - amount
        self._level = level
        return max(0.0, -level / self.rate)

    def seconds_until(self, amount: float, now: float) -> float:
        """Until ``take`` would succeed."""
        return max(0.0, (amount - self.level(now)) / self.rate)

    def is_full(self, now: float) -> bool:
        return self.level(now) >= self.burst
