"""What each user of a proxy has open, has moved, and may have at most.

Connections are counted from the moment they are relayed, and refused before they are dialled; bytes
a second are limited by the engine, for all connections of a user together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from qanat.stack.bridge import Bridge
from qanat.stack.connect.target import Connector, ConnectTo
from qanat.stack.courier import courier
from qanat.stack.errors import ConnectError
from qanat.stack.facts import Rates, User
from qanat.stack.relaying import RelayReport
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream

__all__ = ["Account", "Accounted", "Accounts", "Allowance", "WithinAllowance"]

MOST_USERS: Final = 65_536
"""Users that are counted at once; those of a file are fewer."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a user may have at most; 0 means no limit."""

    connections: int = 0
    up: int = 0
    down: int = 0
    """Bytes a second."""


@dataclass(slots=True)
class Account:
    open: int = 0
    total: int = 0
    refused: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    """Of connections that have ended."""
    told: tuple[int, int] = (0, 0)

    def tell(self, moving_up: int, moving_down: int) -> tuple[int, int]:
        """Bytes each way, with those of connections that live. It never tells less than before,
        although a flow may have ended whose report is on its way."""
        up, down = self.told
        self.told = max(up, self.bytes_up + moving_up), max(down, self.bytes_down + moving_down)
        return self.told


class Accounts:
    """Of all users. ``allowance`` tells what one may have; a reload replaces it."""

    def __init__(self, allowance: Callable[[str], Allowance]) -> None:
        self.allowance: Callable[[str], Allowance] = allowance
        self.by_user: dict[str, Account] = {}
        self._limited: dict[str, Allowance] = {}

    def of(self, name: str) -> Account:
        found = self.by_user.get(name)
        if found is None:
            if len(self.by_user) >= MOST_USERS:
                raise ConnectError("too many users", kind="limit", domain="local")
            found = self.by_user[name] = Account()
        return found

    def admit(self, name: str) -> None:
        """:raises ConnectError: of kind ``limit``, when the user has all that is allowed."""
        account, most = self.of(name), self.allowance(name).connections
        if most and account.open >= most:
            account.refused += 1
            raise ConnectError(
                f"{name} has {account.open} connections open, the most allowed",
                kind="limit",
                domain="local",
            )

    async def rates(self, name: str) -> tuple[str, ...]:
        """The name of the user's limit on bytes a second, told to the engine when it is new."""
        allowed = self.allowance(name)
        if not (allowed.up or allowed.down):
            return ()
        key = f"user:{name}"
        if self._limited.get(name) != allowed:
            carrier = await courier()
            carrier.set_rates(key, allowed.up or None, allowed.down or None)
            self._limited[name] = allowed
        return (key,)

    async def replace(self, allowance: Callable[[str], Allowance]) -> None:
        """Other limits from now on, for connections that are open, too."""
        self.allowance = allowance
        carrier = await courier()
        for name in list(self._limited):
            allowed = allowance(name)
            carrier.set_rates(f"user:{name}", allowed.up or None, allowed.down or None)
            if allowed.up or allowed.down:
                self._limited[name] = allowed
            else:
                del self._limited[name]


@dataclass(frozen=True, slots=True)
class WithinAllowance:
    """A connector layer: no dialling for users that have all their connections open."""

    accounts: Accounts = field(repr=False)

    def __call__(self, inner: Connector, /) -> Connector:
        return _Within(self.accounts, inner)


@dataclass(frozen=True, slots=True)
class _Within:
    accounts: Accounts = field(repr=False)
    inner: Connector

    async def __call__(self, asked: ConnectTo, /) -> Stream:
        user = asked.ext.get(User)
        if user is not None:
            self.accounts.admit(user.name)
        return await self.inner(asked)


@dataclass(frozen=True, slots=True)
class Accounted:
    """Relays a bridge and counts it to its user."""

    accounts: Accounts = field(repr=False)
    relay: Service[Bridge, RelayReport]
    ended: Callable[[Bridge, RelayReport], Any] | None = field(default=None, repr=False)
    """Told of every bridge at its end, also when it was cut."""

    async def __call__(self, bridge: Bridge, /) -> RelayReport:
        user = bridge.ext.get(User)
        if user is None:
            return await self._told(bridge)
        # Once more, since others may have been connected while this one was dialled.
        self.accounts.admit(user.name)
        keys = await self.accounts.rates(user.name)
        if keys:
            bridge.ext.insert(Rates(keys))
        account = self.accounts.of(user.name)
        account.open += 1
        account.total += 1
        try:
            report = await self._told(bridge)
            account.bytes_up += report.bytes_up
            account.bytes_down += report.bytes_down
            return report
        finally:
            account.open -= 1

    async def _told(self, bridge: Bridge) -> RelayReport:
        began = asyncio.get_running_loop().time()
        try:
            report = await self.relay(bridge)
        except asyncio.CancelledError:
            if self.ended is not None:
                seconds = asyncio.get_running_loop().time() - began
                self.ended(bridge, RelayReport("drained", None, 0, 0, seconds, lowered=True))
            raise
        if self.ended is not None:
            self.ended(bridge, report)
        return report
