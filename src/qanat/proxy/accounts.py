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
from qanat.stack.courier import Courier, courier
from qanat.stack.errors import ConnectError
from qanat.stack.extensions import Extensions
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
    dialled: int = 0
    """Connections that are let in and on their way: each may become one that is open."""
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


@dataclass(slots=True)
class _Counted:
    """Whether this connection is among those of a user."""

    name: str
    now: bool = True


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
        if most and account.open + account.dialled >= most:
            self.refuse(name)
            raise ConnectError(
                f"{name} has {most} connections open, the most allowed",
                kind="limit",
                domain="local",
            )

    def refuse(self, name: str) -> None:
        """This user may not have something."""
        self.of(name).refused += 1

    def begin(self, name: str, ext: Extensions) -> None:
        """One more connection of this user; :raises ConnectError: of kind ``limit``."""
        self.admit(name)
        self.count(name, ext)

    def count(self, name: str, ext: Extensions) -> None:
        """The same for one that was let in before."""
        self.of(name).open += 1
        ext.insert(_Counted(name))

    def end(self, name: str, ext: Extensions) -> None:
        self.of(name).open -= 1
        counted = ext.get(_Counted)
        if counted is not None:
            counted.now = False

    async def rates(self, name: str) -> tuple[str, ...]:
        """The name of the user's limits on bytes a second, told to the engine when they are new. It
        is the same without any, so that a reload can set some for what is on its way."""
        allowed = self.allowance(name)
        if (allowed.up or allowed.down) and self._limited.get(name) != allowed:
            self._limit(await courier(), name, allowed)
        return (f"user:{name}",)

    def _limit(self, carrier: Courier, name: str, allowed: Allowance) -> None:
        carrier.set_rates(f"user:{name}", allowed.up or None, allowed.down or None)
        if allowed.up or allowed.down:
            self._limited[name] = allowed
        else:
            self._limited.pop(name, None)

    async def replace(self, allowance: Callable[[str], Allowance]) -> None:
        """Other limits from now on, for connections that are open, too."""
        self.allowance = allowance
        carrier = await courier()
        for name in self.by_user.keys() | self._limited.keys():
            allowed = allowance(name)
            if self._limited.get(name, Allowance()) != allowed:
                self._limit(carrier, name, allowed)


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
        if user is None:
            return await self.inner(asked)
        counted = asked.ext.get(_Counted)
        if counted is not None and counted.now and counted.name == user.name:
            return await self.inner(asked)
        self.accounts.admit(user.name)
        account = self.accounts.of(user.name)
        account.dialled += 1
        try:
            return await self.inner(asked)
        finally:
            # Whoever dials counts it as open before anybody else has a turn.
            account.dialled -= 1


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
        self.accounts.count(user.name, bridge.ext)
        account = self.accounts.of(user.name)
        account.total += 1
        try:
            bridge.ext.insert(Rates(await self.accounts.rates(user.name)))
            report = await self._told(bridge)
            account.bytes_up += report.bytes_up
            account.bytes_down += report.bytes_down
            return report
        finally:
            self.accounts.end(user.name, bridge.ext)

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
