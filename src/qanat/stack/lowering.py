"""Handing a flow down to the engine, when nothing in Python needs its bytes any more.

Two plain sockets go down with what was read from them and not used; so do streams that the engine
holds already. The flow is in the engine's table from then on, as any other, with its client, its
user and its target. What can't be lowered is no error: Python moves it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from qanat.stack.address import Address
from qanat.stack.courier import Courier, Ended, courier
from qanat.stack.errors import StackError
from qanat.stack.facts import Accepted, Client, Listener, Peer, Rates, Target, User
from qanat.stack.stream.base import Stream
from qanat.stack.stream.engine import EngineStream
from qanat.stack.stream.sockets import SocketStream, detach_both

__all__ = ["LoweredFlow", "flow_plan", "lowerable", "lowered"]

_logger = logging.getLogger("qanat.stack")


@dataclass(slots=True)
class LoweredFlow:
    """A flow that the engine moves."""

    courier: Courier
    number: int
    """In the engine's list of flows."""
    ending: asyncio.Future[Ended]

    def cut(self) -> None:
        """Reset both sides, unless it has ended."""
        self.courier.cut(self.number)


def lowerable(stream: Stream) -> bool:
    """Whether the engine could move the bytes of this stream."""
    return isinstance(stream, SocketStream | EngineStream)


async def lowered(
    client: Stream, upstream: Stream, idle: float | None, linger: float | None
) -> LoweredFlow | tuple[Stream, Stream]:
    """The flow or, if the engine can't have it, the streams to move in Python: those given, or one
    of the engine in place of a socket that it has taken already."""
    if not (lowerable(client) and lowerable(upstream)):
        return client, upstream
    try:
        carrier = await courier()
    except ImportError:
        return client, upstream
    try:
        # Written here, since this happens for every flow.
        plan = json.dumps(flow_plan(carrier, client, upstream, idle, linger))
        if isinstance(client, SocketStream) and isinstance(upstream, SocketStream):
            return _lower(carrier, client, upstream, plan)
        # Streams of the engine first: one that has failed is found before a socket is taken.
        if isinstance(client, EngineStream):
            client.take()
        upstream = _held(carrier, upstream)
        client = _held(carrier, client)
        return _join(carrier, client, upstream, plan)
    except StackError as error:
        # A stream that has failed meanwhile is found out again, and reported, by who moves it.
        _logger.debug("the engine does not take a flow: %s", error)
        return client, upstream


def flow_plan(
    carrier: Courier,
    client: Stream,
    upstream: Stream,
    idle: float | None = None,
    linger: float | None = None,
) -> dict[str, Any]:
    """What a JoinPlan says, by the facts of both streams."""
    ext = client.ext
    listener, asked = ext.get(Listener), ext.get(Target)
    source, peer = ext.get(Client) or ext.get(Peer), upstream.ext.get(Peer)
    user, rates, accepted = ext.get(User), ext.get(Rates), ext.get(Accepted)
    name = listener.name if listener is not None and listener.name else "stack"
    return {
        "endpoint": carrier.endpoint(name),
        "target": str(asked.address if asked else peer.address if peer else ""),
        "client": _numeric(source),
        "peer": _numeric(peer),
        "listener": _numeric(listener),
        "user": None if user is None else user.name,
        "idle_timeout": idle,
        "linger": linger,
        "rates": () if rates is None else rates.keys,
        "age": 0.0 if accepted is None else max(0.0, carrier.now() - accepted.at),
        "connect": None,
    }


def _numeric(fact: Client | Peer | Listener | None) -> str | None:
    if fact is None or not _is_numeric(fact.address.host):
        return None
    return str(fact.address)


@lru_cache(maxsize=4096)
def _is_numeric(host: str) -> bool:
    """Whether the engine reads it as an address. Remembered: this takes longer than all the rest of
    a plan, and most flows have their addresses in common."""
    return "%" not in host and Address(host, 0).ip is not None


def _lower(
    carrier: Courier, client: SocketStream, upstream: SocketStream, plan: str
) -> LoweredFlow:
    ours, theirs = detach_both(client, upstream)
    try:
        number, ending = carrier.lower(
            ours.socket.fileno(), theirs.socket.fileno(), plan, ours.unread, theirs.unread
        )
    except BaseException:
        client.reattach(ours)
        upstream.reattach(theirs)
        raise
    # The engine has them now.
    ours.socket.detach()
    theirs.socket.detach()
    return LoweredFlow(carrier, number, ending)


def _held(carrier: Courier, stream: Stream) -> EngineStream:
    if isinstance(stream, EngineStream):
        stream.take()
        return stream
    taken = stream.detach()
    assert isinstance(stream, SocketStream)  # noqa: S101 - by lowerable()
    try:
        with carrier.translated():
            leg = carrier.desk.adopt(taken.socket.fileno(), taken.unread)
    except BaseException:
        stream.reattach(taken)
        raise
    taken.socket.detach()
    return EngineStream(carrier, leg, stream.ext)


def _join(carrier: Courier, client: EngineStream, upstream: EngineStream, plan: str) -> LoweredFlow:
    (ours, ours_unread), (theirs, theirs_unread) = client.take(), upstream.take()
    with carrier.translated():
        number = carrier.desk.join(ours, theirs, plan, ours_unread, theirs_unread)
    client.gone()
    upstream.gone()
    return LoweredFlow(carrier, number, carrier.ending(number))
