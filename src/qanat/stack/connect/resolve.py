"""The layer that looks the target's name up, and says which addresses there are to try."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from qanat.stack.address import Address
from qanat.stack.connect.resolver import Resolver
from qanat.stack.connect.target import ConnectTo
from qanat.stack.service import Service

__all__ = ["Resolve"]

Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Resolve:
    """Fills in ``candidates``. Stacks that share a resolver share what it remembers.

    A target whose candidates are known already passes as it is.
    """

    resolver: Resolver = field(default_factory=Resolver)

    def __call__(self, inner: Service[ConnectTo, Out], /) -> Service[ConnectTo, Out]:
        return _Resolving(self.resolver, inner)


@dataclass(frozen=True, slots=True)
class _Resolving(Generic[Out]):
    resolver: Resolver
    inner: Service[ConnectTo, Out]

    def __call__(self, asked: ConnectTo, /) -> Awaitable[Out]:
        if asked.candidates is not None:
            return self.inner(asked)
        found = self.resolver.known(asked.target.host)
        if found is None:
            return self._wait(asked)
        return self.inner(_with(asked, found))

    async def _wait(self, asked: ConnectTo) -> Out:
        found = await self.resolver.addresses(asked.target.host)
        return await self.inner(_with(asked, found))


def _with(asked: ConnectTo, found: tuple[str, ...]) -> ConnectTo:
    target = asked.target
    if len(found) == 1 and found[0] == target.host:
        return ConnectTo(target, asked.ext, (target,))
    candidates = tuple(Address(host, target.port) for host in found)
    return ConnectTo(target, asked.ext, candidates)
