"""A time limit for whatever is below, which names its phase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from qanat.stack.errors import LocalProtocolError
from qanat.stack.phases import within
from qanat.stack.service import Service

__all__ = ["Timeout"]

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Timeout:
    """``Timeout(10, "connect")`` ends with ``connect timed out after 10 s``. None does nothing."""

    seconds: float | None
    phase: str = "total"

    def __post_init__(self) -> None:
        if self.seconds is not None and self.seconds <= 0:
            raise LocalProtocolError(f"Timeout: {self.seconds} s is no time; None is no limit")

    def __call__(self, inner: Service[In, Out], /) -> Service[In, Out]:
        return inner if self.seconds is None else _Limited(self.seconds, self.phase, inner)


@dataclass(frozen=True, slots=True)
class _Limited(Generic[In, Out]):
    seconds: float
    phase: str
    inner: Service[In, Out]

    async def __call__(self, asked: In, /) -> Out:
        async with within(self.seconds, self.phase):
            return await self.inner(asked)
