"""The PROXY protocol on both sides of a service: who the client is, and telling the target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from qanat.stack.codec.proxy_protocol import (
    LONGEST_HEADER,
    ProxyHeader,
    encode_proxy_header,
    parse_proxy_header,
)
from qanat.stack.codec.verdict import NeedMore
from qanat.stack.connect.target import Connector, ConnectTo
from qanat.stack.errors import (
    ConnectError,
    LocalProtocolError,
    PhaseTimeout,
    RemoteProtocolError,
    StackError,
)
from qanat.stack.facts import Client, Listener, Peer
from qanat.stack.networks import NetworkSet
from qanat.stack.phases import within
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream

__all__ = ["ProxyProtocolAccept", "ProxyProtocolSend"]

Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class ProxyProtocolAccept:
    """Takes a header of either version off every connection: what it tells is in the extensions as
    :class:`~qanat.stack.Client` and :class:`~qanat.stack.ProxyHeader`.

    With ``trusted`` networks, headers count only from there; others are refused, or with
    ``optional`` are the client themselves. With ``optional`` connections may come without one.
    """

    trusted: Iterable[str] = ()
    optional: bool = False
    timeout: float | None = 5.0
    """Seconds for the whole header. A client that says nothing for so long is let through with
    ``optional``: perhaps the server speaks first."""

    def __call__(self, inner: Service[Stream, Out], /) -> Service[Stream, Out]:
        try:
            networks = NetworkSet(self.trusted)
        except ValueError as error:
            raise LocalProtocolError(f"trusted: {error}") from None
        return _Accepting(networks, self.optional, self.timeout, inner)


@dataclass(frozen=True, slots=True)
class _Accepting(Generic[Out]):
    trusted: NetworkSet
    optional: bool
    timeout: float | None
    inner: Service[Stream, Out]

    async def __call__(self, stream: Stream, /) -> Out:
        peer = stream.ext.get(Peer)
        ip = peer.address.ip if peer is not None else None
        if self.trusted and (ip is None or ip not in self.trusted):
            if not self.optional:
                raise RemoteProtocolError(f"{ip} is not trusted to send a PROXY header")
            return await self.inner(stream)
        header = await self._header(stream)
        if header is not None:
            stream.ext.insert(header)
            if header.source is not None:
                stream.ext.insert(Client(header.source))
        elif not self.optional:
            raise RemoteProtocolError("the connection does not begin with a PROXY header")
        return await self.inner(stream)

    async def _header(self, stream: Stream) -> ProxyHeader | None:
        seen = b""
        try:
            async with within(self.timeout, "proxy-header"):
                while True:
                    before, seen = seen, await stream.peek(len(seen), LONGEST_HEADER)
                    parsed = parse_proxy_header(seen)
                    if parsed is None:
                        return None
                    if not isinstance(parsed, NeedMore):
                        await stream.read_exactly(parsed.size)
                        return parsed.value
                    if len(seen) == len(before):
                        # The end. What was said is no header, unless one was begun.
                        if not self.optional or len(seen) >= len(b"PROXY "):
                            raise RemoteProtocolError("the end came within a PROXY header")
                        return None
        except PhaseTimeout:
            if self.optional and not seen:
                return None
            raise


@dataclass(frozen=True, slots=True)
class ProxyProtocolSend:
    """A connector layer: the target is told who the client is, before anything else.

    That is the client whom a header told us of, and otherwise the peer of the connection that asks;
    what else a header of version 2 told is passed on in version 2.
    """

    version: Literal[1, 2] = 2
    checksum: bool = False

    def __call__(self, inner: Connector, /) -> Connector:
        return _Sending(self, inner)


@dataclass(frozen=True, slots=True)
class _Sending:
    settings: ProxyProtocolSend
    inner: Connector

    async def __call__(self, asked: ConnectTo, /) -> Stream:
        stream = await self.inner(asked)
        try:
            header = encode_proxy_header(
                self.settings.version, _about(asked), checksum=self.settings.checksum
            )
            await stream.write(header)
        except StackError as error:
            stream.abort()
            raise ConnectError(
                f"{asked.target}: it took no PROXY header: {error}",
                kind="reset",
                target=str(asked.target),
            ) from error
        except BaseException:
            stream.abort()
            raise
        return stream


def _about(asked: ConnectTo) -> ProxyHeader:
    told = asked.ext.get(ProxyHeader)
    if told is not None and told.source is not None:
        return told
    client, peer, listener = asked.ext.get(Client), asked.ext.get(Peer), asked.ext.get(Listener)
    who = client or peer
    return ProxyHeader(
        who.address if who is not None else None,
        listener.address if listener is not None else None,
        told.tlvs if told is not None else (),
    )
