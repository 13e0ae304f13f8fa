"""Handing a client and the server that it keeps asking down to the engine.

The engine exchanges ordinary messages as this proxy would, byte for byte, and gives both sockets
back as soon as anything else comes: a request for another server, without the credentials that
were right, with a protocol to change; an answer that ends its connection; a time limit. Nothing of
such a message has gone anywhere then.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qanat.proxy.http.hop_by_hop import OUR_NAME
from qanat.stack.courier import Courier, Ended, Left, courier
from qanat.stack.errors import StackError
from qanat.stack.lowering import flow_plan
from qanat.stack.stream.base import Detached
from qanat.stack.stream.sockets import SocketStream, detach_both

__all__ = ["Agreed", "Exchanged", "exchanged"]


@dataclass(frozen=True, slots=True)
class Agreed:
    """What holds for all messages of one exchange."""

    authority: bytes
    """As the client writes it."""
    credentials: bytes | None
    """What the client must say, or None when it must say nothing."""
    checked: bool
    """Whether that matters."""
    head_timeout: float | None
    next_timeout: float | None
    answer_timeout: float | None

    def plan(
        self, carrier: Courier, client: SocketStream, upstream: SocketStream
    ) -> dict[str, Any]:
        """An ExchangePlan; :raises UnicodeDecodeError: what JSON can't say."""
        return {
            "flow": flow_plan(carrier, client, upstream),
            "authority": self.authority.decode("ascii"),
            "via": OUR_NAME.decode("ascii"),
            "credentials": None if self.credentials is None else self.credentials.decode("ascii"),
            "checked": self.checked,
            "head_timeout": self.head_timeout,
            "next_timeout": self.next_timeout,
            "answer_timeout": self.answer_timeout,
        }


@dataclass(frozen=True, slots=True)
class Exchanged:
    """How an exchange ended."""

    ended: Ended
    left: Left | None
    """None when it was cut."""

    @property
    def requests(self) -> int:
        return 0 if self.left is None else self.left.requests


async def exchanged(
    client: SocketStream,
    upstream: SocketStream,
    agreed: Agreed,
    told: Callable[[dict[str, Any]], None] | None,
) -> Exchanged | None:
    """Both streams are as before if the engine does not take them, which is told by None. Else they
    are closed, or go on with what the engine has left of them."""
    try:
        carrier = await courier()
        plan = agreed.plan(carrier, client, upstream)
    except (ImportError, UnicodeDecodeError, StackError):
        return None
    plan["told"] = told is not None

    def tell(kind: str, text: str) -> None:
        if told is not None and kind == "answered":
            told(json.loads(text))

    try:
        ours, theirs = detach_both(client, upstream)
    except StackError:
        return None
    kinds = [(one.socket.family, one.socket.type, one.socket.proto) for one in (ours, theirs)]
    try:
        flow, ending = carrier.exchange(
            ours.socket.fileno(),
            theirs.socket.fileno(),
            json.dumps(plan),
            ours.unread,
            None if told is None else tell,
        )
    except BaseException as error:
        client.reattach(ours)
        upstream.reattach(theirs)
        if isinstance(error, StackError):
            return None
        raise
    ours.socket.detach()
    theirs.socket.detach()
    try:
        ended = await ending
    except asyncio.CancelledError:
        carrier.cut(flow)
        left = carrier.recover(flow)
        if left is not None:
            left.close()
        raise
    left = carrier.recover(flow)
    if left is not None:
        for stream, fd, kind, unread in (
            (client, left.client_fd, kinds[0], left.unread),
            (upstream, left.upstream_fd, kinds[1], left.answered),
        ):
            if fd >= 0:
                sock = socket.socket(*kind, fileno=fd)
                sock.setblocking(False)
                stream.reattach(Detached(sock, unread))
    return Exchanged(ended, left)
