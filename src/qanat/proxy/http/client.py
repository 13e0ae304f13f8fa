"""One client of the HTTP proxy with all its requests, and the server that the last one went to."""

from __future__ import annotations

import asyncio
import binascii
import inspect
import socket
from base64 import b64decode
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from qanat.proxy.http.exchange import Agreed, exchanged
from qanat.proxy.http.forwarding import Forwarded, Forwarding
from qanat.proxy.http.heads import read_head
from qanat.proxy.http.hop_by_hop import forwarded_request
from qanat.proxy.http.limits import Pace
from qanat.proxy.http.pages import page_for
from qanat.proxy.http.target import Absolute, absolute_target, connect_target
from qanat.stack.address import Address
from qanat.stack.bridge import Bridge
from qanat.stack.codec.http1 import (
    NO_BODY,
    Framing,
    RequestHead,
    parse_request_head,
    request_framing,
)
from qanat.stack.codec.verdict import NEED_MORE
from qanat.stack.connect.target import ConnectTo
from qanat.stack.courier import Left, courier
from qanat.stack.errors import (
    AuthRequired,
    ConnectError,
    IncompleteRead,
    PhaseTimeout,
    RemoteProtocolError,
    StackError,
    StreamBroken,
)
from qanat.stack.facts import Rates, Target, User
from qanat.stack.phases import within
from qanat.stack.stream.base import Stream
from qanat.stack.stream.sockets import SocketStream

if TYPE_CHECKING:
    from qanat.proxy.http.service import HttpProxy

__all__ = ["Client"]

_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
_LAST_WORD_SECONDS: Final = 2.0
_IN_VAIN: Final = 3
"""How often in a row the engine may find nothing but an answer that is not ordinary."""
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})


class Client:
    """One client connection, and the server that its last request went to."""

    __slots__ = (
        "_asked",
        "_credentials",
        "_held",
        "_in_vain",
        "_kept",
        "_kept_for",
        "_odd",
        "_pace",
        "_raw",
        "proxy",
        "stream",
    )

    def __init__(self, proxy: HttpProxy, stream: Stream) -> None:
        self._asked: RequestHead | None = None
        """The present request: connectors may choose by it."""
        self._raw = b""
        """Its head as it came."""
        self._in_vain = 0
        """How often in a row the engine found nothing but an answer that was not ordinary."""
        self._odd = False
        """Whether the engine has given back the request that comes next."""
        self._held: str | None = None
        """The user to whom this connection is counted."""
        self._pace: Pace | None = None
        self.proxy = proxy
        self.stream = stream
        self._kept: Stream | None = None
        self._kept_for: Address | None = None
        self._credentials: bytes | None = None
        """Those that were right, so that they are not checked for every request."""

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._let_go()
        self.release()

    def _let_go(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            # It rests between two requests: nothing is on its way that a reset could take.
            kept.abort()

    async def serve(self) -> Any:
        seconds = self.proxy.head_timeout
        while True:
            head: RequestHead | None = None
            said = False
            try:
                head = await self._head(seconds)
                if head is None:
                    return None
                self._asked = head
                await self._authenticate(head)
                if head.method == b"CONNECT":
                    target = connect_target(head)
                    upstream = await self._tunnel(target)
                    break
                said = True
                if not await self._forward(head):
                    return None
            except Exception as error:
                if not said:
                    await self.refuse(error, head)
                raise
            seconds = self.proxy.idle_timeout
        try:
            return await self.proxy.then(Bridge(self.stream, upstream))
        finally:
            # After a relay there is nothing left to end.
            upstream.abort()

    async def _head(self, seconds: float | None) -> RequestHead | None:
        """The next request; None when the client has no further one."""
        seen = b""
        try:
            async with asyncio.timeout(seconds) as limit:
                seen = await self.stream.read()
                if not seen:
                    return None
                if self.proxy.head_timeout is not None and seconds != self.proxy.head_timeout:
                    now = asyncio.get_running_loop().time()
                    limit.reschedule(now + self.proxy.head_timeout)
                found, self._raw = await read_head(
                    self.stream, seen, parse_request_head, "the head"
                )
                return found
        except TimeoutError as error:
            if not seen and seconds != self.proxy.head_timeout:
                # It had nothing more to ask for.
                return None
            raise PhaseTimeout("head", self.proxy.head_timeout or 0.0) from error

    async def _authenticate(self, head: RequestHead) -> None:
        auth = self.proxy.auth
        if auth is None:
            return
        given = head.values(b"proxy-authorization")
        if not given:
            if self.proxy.guest:
                return
            raise AuthRequired
        if len(given) > 1:
            raise AuthRequired("several Proxy-Authorization fields")
        if given[0] == self._credentials:
            return
        scheme, _, text = given[0].partition(b" ")
        if scheme.lower() != b"basic":
            raise AuthRequired("only Basic credentials are understood")
        try:
            raw = b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            raise AuthRequired("the credentials are malformed") from None
        name, colon, password = raw.partition(b":")
        if not colon:
            raise AuthRequired("the credentials are malformed")
        answer = auth(
            name.decode("utf-8", "surrogateescape"), password.decode("utf-8", "surrogateescape")
        )
        user: User | None = await answer if inspect.isawaitable(answer) else answer
        if user is None:
            raise AuthRequired("wrong name or password")
        self._credentials = given[0]
        self.stream.ext.insert(user)

    async def _hold(self) -> None:
        """Count this connection to its user, and find out which limits hold."""
        limits, user = self.proxy.limits, self.stream.ext.get(User)
        if limits is None or user is None or self._held == user.name:
            return
        self.release()
        limits.begin(user.name, self.stream.ext)
        self._held = user.name
        keys = await limits.rates(user.name)
        self.stream.ext.insert(Rates(keys))
        self._pace = Pace(await courier(), keys)

    def release(self) -> None:
        """It is no longer counted to its user here."""
        held, self._held, self._pace = self._held, None, None
        if self.proxy.limits is not None and held is not None:
            self.proxy.limits.end(held, self.stream.ext)

    async def _tunnel(self, target: Address) -> Stream:
        self._let_go()
        self.release()
        stream = self.stream
        stream.ext.insert(Target(target))
        if self.proxy.lazy:
            await stream.write(_ESTABLISHED)
            return await self._dial(target)
        upstream = await self._dial(target)
        try:
            await stream.write(_ESTABLISHED)
        except BaseException:
            upstream.abort()
            raise
        return upstream

    async def _dial(self, target: Address) -> Stream:
        seconds = self.proxy.connect_timeout
        async with within(seconds, "connect"):
            ext = self.stream.ext.fork()
            if self._asked is not None:
                ext.insert(self._asked)
            return await self.proxy.connect(ConnectTo(target, ext))

    async def _forward(self, head: RequestHead) -> bool:
        """One request and its answer; whether the client may ask for more."""
        try:
            if head.method == b"TRACE":
                raise RemoteProtocolError("TRACE is not forwarded", status=405)
            wanted = absolute_target(head)
            await self._hold()
            exchange: Forwarding | None = None
            odd, self._odd = self._odd, False
            if not odd and self._may_exchange(head, wanted.address):
                done = await self._exchange(wanted)
                if isinstance(done, bool):
                    return done
                exchange = done
            exchange = exchange or await self._begin(wanted, head)
        except Exception as error:
            await self.refuse(error, self._asked)
            raise
        return await exchange.answer()

    async def _begin(self, wanted: Absolute, head: RequestHead) -> Forwarding:
        framing = request_framing(head)
        text = forwarded_request(head, wanted.path, wanted.host, chunked=framing.kind == "chunked")
        self.stream.ext.insert(Target(wanted.address))
        return await self._ask(wanted.address, head, framing, text)

    def _may_exchange(self, head: RequestHead, target: Address) -> bool:
        """Whether this client asks the same server again, and nobody here needs to look."""
        kept = self._kept
        return (
            self.proxy.lower
            and kept is not None
            and self._kept_for == target
            and self._in_vain < _IN_VAIN
            and head.minor == 1
            and isinstance(kept, SocketStream)
            and isinstance(self.stream, SocketStream)
            and _is_quiet(kept)
        )

    async def _exchange(self, wanted: Absolute) -> bool | Forwarding | None:
        """Have the engine pass on the present request and those after it. Whether the client may
        ask for more, or the request that is to be answered here; None if the present one is still
        to do."""
        proxy, client, upstream = self.proxy, self.stream, self._kept
        assert isinstance(client, SocketStream)  # noqa: S101 - by _may_exchange()
        assert isinstance(upstream, SocketStream)  # noqa: S101
        agreed = Agreed(
            wanted.host,
            self._credentials,
            proxy.auth is not None,
            proxy.head_timeout,
            proxy.idle_timeout,
            proxy.answer_timeout,
        )
        each = proxy.forwarded is not None and proxy.each()

        def told(one: dict[str, Any]) -> None:
            up, down, seconds = one["up"], one["down"], one["seconds"]
            method, status = one["method"], one["status"]
            self.tell(method, wanted.address, status, up, down, seconds, live=True)

        client.unread(self._raw)
        done = await exchanged(client, upstream, agreed, told if each else None)
        if done is None:
            self._in_vain = _IN_VAIN
            await client.read(len(self._raw))
            return None
        left, ended = done.left, done.ended
        # What is not answered yet is told with its answer.
        up = ended.up - (left.up if left is not None else 0)
        if up or ended.down:
            self.tell("", wanted.address, 0, up, ended.down, ended.seconds, done.requests)
        if upstream.closed:
            self._kept = None
        if left is None or client.closed or left.why == "idle":
            return False
        if left.asked:
            self._in_vain = 0 if done.requests else self._in_vain + 1
            return await self._resume(left, wanted.address, upstream)
        if left.why == "head_timeout" and parse_request_head(left.unread) is NEED_MORE:
            raise PhaseTimeout("head", proxy.head_timeout or 0.0)
        # What comes next is read and looked at like any other request, and the engine does not want
        # it.
        self._odd = bool(left.unread)
        return True

    async def _resume(self, left: Left, target: Address, upstream: Stream) -> Forwarding:
        """Go on with a request that was passed on, and not answered in an ordinary way."""
        self._kept = None
        found = parse_request_head(left.asked)
        assert found is not NEED_MORE  # noqa: S101 - it was read before
        head = self._asked = found.value
        # After a failure nobody knows how much of the request the server has.
        last = left.why == "target"
        exchange = Forwarding(self, upstream, target, head, NO_BODY, passed=left.up, last=last)
        if left.why == "answer_timeout":
            await exchange.drop()
            raise PhaseTimeout("connect", self.proxy.answer_timeout or 0.0)
        try:
            await exchange.begin(b"")
        except (StreamBroken, IncompleteRead):
            if request_framing(head).kind != "none" or head.method not in _IDEMPOTENT:
                raise
            return await self._begin(absolute_target(head), head)
        return exchange

    def keep(self, upstream: Stream, target: Address) -> None:
        """For the next request, if it goes to the same server."""
        self._kept, self._kept_for = upstream, target

    async def up(self, count: int) -> None:
        """Bytes are about to go to the server: returns when they may."""
        if self._pace is not None and count:
            await self._pace.up(count)

    async def down(self, count: int) -> None:
        if self._pace is not None and count:
            await self._pace.down(count)

    def tell(
        self,
        method: str,
        target: Address,
        status: int,
        up: int,
        down: int,
        seconds: float,
        requests: int = 1,
        *,
        live: bool = False,
    ) -> None:
        told = self.proxy.forwarded
        if told is not None:
            ext = self.stream.ext
            told(Forwarded(ext, method, target, status, up, down, seconds, requests, live))

    async def _ask(
        self, target: Address, head: RequestHead, framing: Framing, text: bytes
    ) -> Forwarding:
        """Send the head on a connection to the target and read the beginning of the answer.

        A kept connection may have been closed by its server at this very moment: what can be asked
        twice is asked again on a new one.
        """
        if self._kept is not None and (self._kept_for != target or not _is_quiet(self._kept)):
            self._let_go()
        upstream, self._kept = self._kept, None
        again = upstream is not None and framing.kind == "none" and head.method in _IDEMPOTENT
        if upstream is not None:
            exchange = Forwarding(self, upstream, target, head, framing)
            try:
                await exchange.begin(text)
            except (StreamBroken, IncompleteRead):
                if not again:
                    raise
            else:
                return exchange
        exchange = Forwarding(self, await self._dial(target), target, head, framing)
        await exchange.begin(text)
        return exchange

    async def refuse(self, error: Exception, head: RequestHead | None) -> None:
        """Say what is wrong, to whoever still listens."""
        if isinstance(error, StreamBroken) or (
            isinstance(error, IncompleteRead) and not error.partial
        ):
            error = ConnectError("the server broke the connection", kind="reset")
        text = page_for(error, head_only=head is not None and head.method == b"HEAD")
        with suppress(StackError, TimeoutError):
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                await self.stream.write(text)
                await self.stream.write_eof()
                if not isinstance(error, StackError):
                    # Our own mistake resets the connection: not before this was read.
                    await self.stream.aclose()


def _is_quiet(stream: Stream) -> bool:
    """Whether a kept connection is as it was left: neither ended nor spoken on."""
    if stream.has_unread:
        # It said more than its answer, which could be taken for the next one.
        return False
    if not isinstance(stream, SocketStream):
        return True
    if stream.closed:
        return False
    try:
        stream.raw.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
