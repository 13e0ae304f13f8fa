"""The SOCKS proxy: versions 5 (RFC 1928, 1929), 4 and 4a on one port.

A service from a client's stream to what the service below made of the bridge: a relay's report.
Where the connector reaches the target, who may go there and how names are looked up are layers of
the connector; who the client is, is asked here. The stream stays the caller's to close;
a client that was told a no is closed at once.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from qanat.proxy.auth import Authenticator
from qanat.proxy.socks_udp import UdpAssociate
from qanat.stack.address import Address
from qanat.stack.association import Association
from qanat.stack.bridge import Bridge
from qanat.stack.codec.socks4 import Reply4, encode_reply4, parse_request4
from qanat.stack.codec.socks5 import (
    Command,
    Method,
    Reply,
    encode_method,
    encode_reply,
    encode_status,
    parse_credentials,
    parse_greeting,
    parse_request,
)
from qanat.stack.codec.verdict import NEED_MORE, Parser
from qanat.stack.connect.target import Connector, ConnectTo
from qanat.stack.errors import (
    AuthRequired,
    ConnectError,
    IncompleteRead,
    LimitReached,
    PhaseTimeout,
    RemoteProtocolError,
    StackError,
    answer_to,
)
from qanat.stack.facts import Listener, Peer, Target, User
from qanat.stack.relaying import Relay
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream
from qanat.stack.stream.sockets import TcpStream

__all__ = ["Socks5Server"]

T = TypeVar("T")

_LAST_WORD_SECONDS: Final = 2.0
"""For a reply that says no. It is a few bytes, so only a broken stream takes any time."""

_NO_METHOD: Final = encode_method(Method.NO_ACCEPTABLE)
_WITHOUT: Final = encode_method(Method.NONE)
_PASSWORD: Final = encode_method(Method.PASSWORD)


class _Wish(NamedTuple):
    version: int
    command: Command
    address: Address


@dataclass(frozen=True, slots=True)
class Socks5Server:
    """CONNECT for all, UDP ASSOCIATE where ``udp`` is given; BIND is refused with 0x07.

    Raises what ended a client that got nothing, after telling it: ConnectError, AuthRequired,
    PhaseTimeout, RemoteProtocolError. Returns what ``then`` returns; None for a client that said
    nothing at all.
    """

    connect: Connector
    auth: Authenticator | None = None
    """Asked for name and password; None serves everybody."""
    guest: bool = False
    """Whether clients without a name are served beside those that have proven one."""
    udp: UdpAssociate | None = None
    then: Service[Bridge, Any] = field(default_factory=Relay)
    handshake_timeout: float | None = 10.0
    """Seconds for everything until the request is there."""
    connect_timeout: float | None = 30.0
    socks4: bool = True
    """Whether versions 4 and 4a are served, too. They have no passwords, so with ``auth`` only
    where guests are welcome."""
    hide_bound: bool = False
    """Whether replies hold zeros and not the address that we connect from."""

    async def __call__(self, stream: Stream, /) -> Any:
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(self.handshake_timeout)
        said: Callable[[BaseException], bytes] | None = None
        upstream: Stream | None = None
        phase, seconds = "handshake", self.handshake_timeout
        try:
            try:
                async with limit:
                    seen = await stream.read()
                    if not seen:
                        return None
                    if seen[0] == 4 and self.socks4:
                        said = _no4
                        wish = await self._wish4(stream, seen)
                    else:
                        seen = await self._greet(stream, seen)
                        said = _no5
                        wish = await self._wish5(stream, seen)
                    if wish.command is Command.CONNECT:
                        phase, seconds = "connect", self.connect_timeout
                        limit.reschedule(None if seconds is None else loop.time() + seconds)
                        stream.ext.insert(Target(wish.address))
                        upstream = await self.connect(ConnectTo(wish.address, stream.ext))
                        await stream.write(self._granted(wish, upstream))
            except TimeoutError as error:
                # One from below, with another meaning, passes.
                if not limit.expired() or seconds is None:
                    raise
                raise PhaseTimeout(phase, seconds) from error
            if upstream is None:
                async with self._association(stream, wish) as association:
                    await stream.write(encode_reply(Reply.SUCCEEDED, association.address))
                    said = None
                    return await _required(self.udp).attend(stream, association)
        except Exception as error:
            if upstream is not None:
                upstream.abort()
            elif said is not None:
                await _last_word(stream, said(error))
            raise
        except BaseException:
            if upstream is not None:
                upstream.abort()
            raise
        try:
            return await self.then(Bridge(stream, upstream))
        finally:
            # After a relay there is nothing left to end.
            upstream.abort()

    async def _greet(self, stream: Stream, seen: bytes) -> bytes:
        """The method, and what belongs to it; returns what came after."""
        offered, seen = await _read(stream, seen, parse_greeting, "the greeting")
        if self.auth is not None and Method.PASSWORD in offered:
            await stream.write(_PASSWORD)
            return await self._authenticate(stream, seen, self.auth)
        if Method.NONE in offered and (self.auth is None or self.guest):
            await stream.write(_WITHOUT)
            return seen
        await _last_word(stream, _NO_METHOD)
        if self.auth is not None:
            raise AuthRequired("the client offers no name and password")
        raise RemoteProtocolError("the client offers no method without authentication")

    async def _authenticate(self, stream: Stream, seen: bytes, auth: Authenticator) -> bytes:
        given, seen = await _read(stream, seen, parse_credentials, "name and password")
        name = given.name.decode("utf-8", "surrogateescape")
        try:
            answer = auth(name, given.password.decode("utf-8", "surrogateescape"))
            user: User | None = await answer if inspect.isawaitable(answer) else answer
        except LimitReached:
            await _last_word(stream, encode_status(False))
            raise
        if user is None:
            await _last_word(stream, encode_status(False))
            raise AuthRequired(f"wrong name or password: {_shown(name)}")
        stream.ext.insert(user)
        await stream.write(encode_status(True))
        return seen

    async def _wish5(self, stream: Stream, seen: bytes) -> _Wish:
        request, rest = await _read(stream, seen, parse_request, "the request")
        command = request.command
        if command is Command.BIND or (command is Command.UDP_ASSOCIATE and self.udp is None):
            raise RemoteProtocolError(
                f"{command.name} is not served", status=405, reply=Reply.COMMAND_NOT_SUPPORTED
            )
        # Whatever a client sends before our reply is for its target.
        stream.unread(rest)
        return _Wish(5, command, request.address)

    async def _wish4(self, stream: Stream, seen: bytes) -> _Wish:
        request, rest = await _read(stream, seen, parse_request4, "the request")
        if self.auth is not None and not self.guest:
            raise AuthRequired("SOCKS 4 has no passwords")
        if request.command is not Command.CONNECT:
            raise RemoteProtocolError("BIND is not served", status=405)
        stream.unread(rest)
        return _Wish(4, request.command, request.address)

    def _granted(self, wish: _Wish, upstream: Stream) -> bytes:
        bound = None
        if not self.hide_bound and isinstance(upstream, TcpStream):
            bound = Address.of_socket(upstream.raw.getsockname())
        if wish.version == 4:
            return encode_reply4(Reply4.GRANTED, bound)
        return encode_reply(Reply.SUCCEEDED, bound)

    def _association(self, stream: Stream, wish: _Wish) -> AbstractAsyncContextManager[Association]:
        ext = stream.ext
        peer, ours = ext.get(Peer), ext.get(Listener)
        if peer is None or ours is None:
            raise ConnectError(
                "an association needs a client with an address", kind="local", domain="local"
            )
        return _required(self.udp).open(
            client=peer.address, local=ours.address, asked=wish.address, ext=ext
        )


def _required(udp: UdpAssociate | None) -> UdpAssociate:
    # Without one, the request was refused before.
    assert udp is not None  # noqa: S101
    return udp


async def _read(stream: Stream, seen: bytes, parse: Parser[T], what: str) -> tuple[T, bytes]:
    """One message, and what came after it."""
    while True:
        found = parse(seen)
        if found is not NEED_MORE:
            return found.value, seen[found.size :]
        more = await stream.read()
        if not more:
            raise IncompleteRead(f"{what} was cut short", partial=seen)
        seen += more


def _no5(error: BaseException) -> bytes:
    return encode_reply(answer_to(error).socks_reply)


def _no4(error: BaseException) -> bytes:
    denied = isinstance(error, AuthRequired)
    return encode_reply4(Reply4.OTHER_USER if denied else Reply4.REJECTED)


async def _last_word(stream: Stream, data: bytes) -> None:
    with suppress(StackError, TimeoutError):
        async with asyncio.timeout(_LAST_WORD_SECONDS):
            await stream.write(data)
            # In order, as a reset may overtake the word.
            await stream.aclose()


def _shown(name: str) -> str:
    """For a log: what a stranger typed, in one short line."""
    short = name if len(name) <= 64 else name[:63] + "…"
    return ascii(short)
