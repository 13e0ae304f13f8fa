"""UDP for clients of the SOCKS5 proxy (RFC 1928 sections 6 and 7).

A client asks for an association on its connection and then sends datagrams, each with the target
that it is for, to the address in our reply. The association lives by that connection. Whether a
target may be reached, and where it is, is decided by the same stack of layers that decides about
connections, with :class:`FirstCandidate` in the place of the connector.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from typing import Any

from qanat.plan import AssociatePlan
from qanat.stack.address import Address
from qanat.stack.association import Association, AssociationEnded, Carrier, DropReason
from qanat.stack.connect.target import ConnectTo
from qanat.stack.errors import ConnectError, PhaseTimeout, StackError, StreamBroken
from qanat.stack.extensions import Extensions
from qanat.stack.facts import User
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream

__all__ = ["FirstCandidate", "UdpAssociate"]

_logger = logging.getLogger("qanat.proxy")

_LAST_REPORT = 5.0
"""Seconds for the engine to say how an association ended that it was told to end."""


@dataclass(frozen=True, slots=True)
class FirstCandidate:
    """The address that layers above resolved and let through, in the place of a connection to it.

    Datagrams go to one address: there is nothing by which several could be raced.
    """

    async def __call__(self, asked: ConnectTo, /) -> Address:
        if asked.candidates:
            return asked.candidates[0]
        if asked.candidates is None and asked.target.ip is not None:
            return asked.target
        raise ConnectError(f"{asked.target} has no address", kind="dns", target=str(asked.target))


@dataclass(frozen=True, slots=True)
class UdpAssociate:
    """Opens associations and answers the engine's questions about their targets."""

    carrier: Carrier = field(repr=False)
    endpoint: int
    """Handle of ``Desk.endpoint``, in whose row they are counted."""
    locate: Service[ConnectTo, Address]
    """Rules, names and guard: the address that was checked, or an error."""
    idle_timeout: float | None = 120.0
    """Without a datagram in either direction; the connection ends with it. The default is that of
    NATs (RFC 4787 REQ-5 asks for two minutes at least)."""
    locate_timeout: float = 10.0
    """For one target. The client's datagrams wait no longer either."""
    through: Address | None = None
    """Where datagrams to targets come from."""
    interface: str | None = None
    """The device that they leave by."""
    rates: tuple[str, ...] = ()
    """Limits that associations share with other flows (``Desk.set_rates``)."""
    targets: int = 256
    """Remembered for each association."""

    @asynccontextmanager
    async def open(
        self, *, client: Address, local: Address, asked: Address | None, ext: Extensions
    ) -> AsyncIterator[Association]:
        """An association for this client, ended on the way out.

        ``client`` and ``local`` are the two ends of its connection: datagrams are taken from the
        client's address alone, at our address of that connection. ``asked`` is what the request
        said: the port that the client will send from, if it knew.

        Raises LimitReached or ConnectError.
        """
        user = ext.get(User)
        plan = AssociatePlan(
            endpoint=self.endpoint,
            client=str(_unmapped(client)),
            bind=str(replace(_unmapped(local), port=0)),
            port=asked.port if asked is not None and asked.port else None,
            user=None if user is None else user.name,
            idle_timeout=self.idle_timeout,
            rates=self.rates,
            through=None if self.through is None else str(self.through),
            interface=self.interface,
            targets=self.targets,
            questions=min(32, self.targets),
        )
        loop = asyncio.get_running_loop()
        # One for each question, which the engine bounds.
        deciding: set[asyncio.Task[None]] = set()

        def asks(target: str) -> None:
            task = loop.create_task(self._decide(association, target, ext), name=f"UDP to {target}")
            deciding.add(task)
            task.add_done_callback(deciding.discard)

        association = Association(self.carrier, plan, asks)
        try:
            yield association
        finally:
            association.close()
            await _cancel(deciding)

    async def attend(self, stream: Stream, association: Association) -> AssociationEnded | None:
        """Wait until the client ends its connection, or the association ends by itself; then end
        the association. What the client says on the connection meanwhile has no meaning.

        Returns what passed; None if the engine does not tell in time. The stream stays the
        caller's.
        """
        loop = asyncio.get_running_loop()
        reading = loop.create_task(_read_away(stream), name="end of a SOCKS5 client")
        try:
            either: set[asyncio.Future[Any]] = {reading, association.ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            association.release()
            await _cancel({reading})
        if not reading.cancelled():
            reading.result()
        done, _ = await asyncio.wait({association.ended}, timeout=_LAST_REPORT)
        return association.ended.result() if done else None

    async def _decide(self, association: Association, text: str, ext: Extensions) -> None:
        try:
            target = Address.parse(text)
        except ValueError as error:
            _logger.debug("UDP: %s", error)
            return association.deny(text)
        try:
            async with asyncio.timeout(self.locate_timeout):
                address = await self.locate(ConnectTo(target=target, ext=ext.fork()))
            association.allow(text, replace(address, port=target.port))
        except (StackError, TimeoutError) as error:
            _logger.debug("UDP to %s: %s", text, error)
            association.deny(text, _reason(error))
        except Exception:
            # A mistake in a layer costs one target, not the association.
            _logger.exception("UDP to %s: the decision failed", text)
            association.deny(text)


def _reason(error: StackError | TimeoutError) -> DropReason:
    match error:
        case ConnectError(kind="dns" | "timeout") | PhaseTimeout() | TimeoutError():
            return "resolve_failed"
        case ConnectError(kind="net-unreachable" | "host-unreachable" | "local"):
            return "unreachable"
        case _:
            return "denied"


async def _read_away(stream: Stream) -> None:
    try:
        while await stream.read():
            pass
    except StreamBroken:
        return


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        # They end at their next step, unless somebody's code holds on: not for longer than this.
        await asyncio.wait(tasks, timeout=_LAST_REPORT)


def _unmapped(address: Address) -> Address:
    """A client of a listener for both families has an IPv4 address in the clothes of IPv6, but
    sends its datagrams by IPv4."""
    ip = address.ip
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return address if mapped is None else replace(address, host=str(mapped))
