"""A UDP association of a SOCKS5 client, as the engine carries it.

The engine moves the datagrams; what is decided here is where they may go, once for each target. The
object belongs to the event loop of its courier.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from qanat.plan import AssociatePlan, to_json
from qanat.stack.address import Address
from qanat.stack.errors import ConnectError, LimitReached

if TYPE_CHECKING:
    from qanat._engine import Desk

__all__ = ["Association", "AssociationEnded", "Carrier", "DropReason"]

DropReason = Literal["denied", "resolve_failed", "unreachable"]
"""Under which of the engine's counts the datagrams for a target go that gets none."""

_LIMITS = frozenset({"limit", "full"})


class Carrier(Protocol):
    """What an association needs of the courier of its loop."""

    @property
    def desk(self) -> Desk: ...

    def watch(self, handle: int, callback: Callable[[str, str], None], /) -> None:
        """Call back with kind and JSON for every report about this handle, in order; forget it
        after ``ended``."""


@dataclass(frozen=True, slots=True)
class AssociationEnded:
    """What passed, payloads alone, and why it ended: a word of ``qanat.observe.reasons``."""

    reason: str
    detail: str | None
    bytes_up: int
    bytes_down: int
    packets_up: int
    packets_down: int
    seconds: float


class Association:
    """An open association. ``asks`` is called with ``host:port`` once for each new target, and is
    to be answered by :meth:`allow` or :meth:`deny`; the engine bounds the unanswered ones.

    Raises LimitReached when there are too many, and ConnectError of kind ``local`` when it can't be
    opened. Whoever opened it calls :meth:`release`.
    """

    __slots__ = ("_asks", "_desk", "_error", "address", "ended", "handle")

    def __init__(
        self, carrier: Carrier, plan: AssociatePlan, asks: Callable[[str], object]
    ) -> None:
        from qanat._engine import EngineError

        self._desk = carrier.desk
        self._error = EngineError
        self._asks = asks
        self.ended: asyncio.Future[AssociationEnded] = asyncio.get_running_loop().create_future()
        """Done when it has ended, whoever wanted that."""
        try:
            handle, address = self._desk.associate(to_json(plan))
        except EngineError as error:
            if error.code in _LIMITS:
                raise LimitReached(f"no UDP association: {error}") from error
            raise ConnectError(
                f"no UDP association: {error}", kind="local", domain="local"
            ) from error
        self.handle: int = handle
        self.address: Address = Address.parse(address)
        """Where the client sends its datagrams to."""
        carrier.watch(self.handle, self._reported)

    def allow(self, target: str, address: Address) -> None:
        """Datagrams for this target go to this address.

        Raises ValueError if that is no IP literal with a port.
        """
        if address.ip is None or not address.port:
            raise ValueError(f"{address} is no address to send to")
        try:
            self._desk.allow(self.handle, target, str(address))
        except self._error:
            # Closed meanwhile: there is nobody to allow anything to.
            return

    def deny(self, target: str, reason: DropReason = "denied") -> None:
        """Datagrams for this target are dropped; after a while the next one asks again."""
        try:
            self._desk.deny(self.handle, target, reason)
        except self._error:
            return

    def release(self) -> None:
        """The client has gone. Idempotent."""
        try:
            self._desk.release(self.handle)
        except self._error:
            return

    def close(self) -> None:
        """Release it, and answer no more questions."""
        self._asks = _ignore
        self.release()

    def _reported(self, kind: str, text: str) -> None:
        if kind == "asks":
            self._asks(json.loads(text)["target"])
        elif not self.ended.done():
            told = json.loads(text) if text else {}
            self.ended.set_result(
                AssociationEnded(
                    reason=told.get("reason", "shutdown"),
                    detail=told.get("detail"),
                    bytes_up=told.get("up", 0),
                    bytes_down=told.get("down", 0),
                    packets_up=told.get("packets_up", 0),
                    packets_down=told.get("packets_down", 0),
                    seconds=told.get("seconds", 0.0),
                )
            )


def _ignore(_: str) -> None:
    """For questions that came too late."""
