"""The HTTP proxy as a service: one client connection with all its requests.

CONNECT dials first and answers then, so that a client learns why it failed; what follows is a
tunnel. Everything else is a request in absolute form, which is forwarded with its body as it comes
and answered likewise; both connections are kept for the next request.
"""

from __future__ import annotations

import asyncio
import binascii
import inspect
import socket
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from qanat.proxy.auth import Authenticator
from qanat.proxy.http.body import carry
from qanat.proxy.http.exchange import Agreed, exchanged
from qanat.proxy.http.hop_by_hop import forwarded_request, forwarded_response, wants_upgrade
from qanat.proxy.http.pace import Pace
from qanat.proxy.http.pages import page_for
from qanat.proxy.http.target import Absolute, absolute_target, connect_target
from qanat.stack.address import Address
from qanat.stack.bridge import Bridge
from qanat.stack.codec.http1 import (
    HEAD_CAP,
    NO_BODY,
    Framing,
    RequestHead,
    ResponseHead,
    parse_request_head,
    parse_response_head,
    request_framing,
    response_framing,
)
from qanat.stack.codec.verdict import NEED_MORE, Parser
from qanat.stack.connect.target import Connector, ConnectTo
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
from qanat.stack.extensions import Extensions
from qanat.stack.facts import Rates, Target, User
from qanat.stack.phases import within
from qanat.stack.relaying import Relay
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream
from qanat.stack.stream.sockets import SocketStream

__all__ = ["Forwarded", "HttpProxy", "UserLimits"]

T = TypeVar("T")

_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
_LAST_WORD_SECONDS: Final = 2.0
_IN_VAIN: Final = 3
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})


@dataclass(frozen=True, slots=True)
class Forwarded:
    """One request that was forwarded, when it is over."""

    ext: Extensions
    method: str
    target: Address
    status: int
    bytes_up: int
    bytes_down: int
    """With the heads, as they went on."""
    seconds: float
    requests: int = 1
    """Several are told as one, without method and status, where nobody asked for each."""


class UserLimits(Protocol):
    """What users may have, by their names."""

    async def rates(self, name: str, /) -> tuple[str, ...]:
        """Names of the limits on bytes a second that hold for them."""

    def begin(self, name: str, ext: Extensions, /) -> None:
        """One more connection of theirs, with what is known of it.

        :raises ConnectError: of kind ``limit``.
        """

    def end(self, name: str, /) -> None:
        """One less."""


@dataclass(frozen=True, slots=True)
class HttpProxy:
    """Returns what ``then`` returns for a tunnel, and None after plain requests.

    Raises what ended a client that got nothing, after telling it by a page.
    """

    connect: Connector
    auth: Authenticator | None = None
    guest: bool = False
    """Whether clients without credentials are served, too."""
    then: Service[Bridge, Any] = field(default_factory=Relay)
    lazy: bool = False
    """Whether CONNECT is answered before the target is reached, as some clients want for speed."""
    head_timeout: float | None = 10.0
    """Seconds for a head that has begun, and for the first one."""
    idle_timeout: float | None = 60.0
    """Seconds for the next request, and for each piece of a body."""
    connect_timeout: float | None = 30.0
    answer_timeout: float | None = 300.0
    """Seconds for a server to begin its answer."""
    forwarded: Callable[[Forwarded], Any] | None = field(default=None, repr=False)
    each: Callable[[], bool] = field(default=lambda: True, repr=False)
    """Whether ``forwarded`` is to hear of each request by itself. If not, those that the engine has
    exchanged are told together."""
    limits: UserLimits | None = field(default=None, repr=False)
    """What holds for each user whose requests are forwarded; for tunnels that is up to ``then``."""
    lower: bool = True
    """Whether the engine may exchange messages of a client that keeps asking one server."""

    async def __call__(self, stream: Stream, /) -> Any:
        async with _Client(self, stream) as client:
            return await client.serve()


class _Client:
    """One client connection, and the server that its last request went to."""

    __slots__ = (
        "_asked",
        "_credentials",
        "_held",
        "_in_vain",
        "_kept",
        "_kept_for",
        "_pace",
        "_proxy",
        "_raw",
        "_stream",
    )

    def __init__(self, proxy: HttpProxy, stream: Stream) -> None:
        self._asked: RequestHead | None = None
        """The present request: connectors may choose by it."""
        self._raw = b""
        """Its head as it came."""
        self._in_vain = 0
        """How often in a row the engine gave both connections back without an answer."""
        self._held: str | None = None
        """The user to whom this connection is counted."""
        self._pace: Pace | None = None
        self._proxy = proxy
        self._stream = stream
        self._kept: Stream | None = None
        self._kept_for: Address | None = None
        self._credentials: bytes | None = None
        """Those that were right, so that they are not checked for every request."""

    async def __aenter__(self) -> _Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._let_go()
        self._release()

    def _let_go(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            # It rests between two requests: nothing is on its way that a reset could take.
            kept.abort()

    async def serve(self) -> Any:
        seconds = self._proxy.head_timeout
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
            except (StackError, TimeoutError) as error:
                if not said:
                    await self._refuse(error, head)
                raise
            except Exception as error:
                if not said:
                    await self._refuse(error, head)
                raise
            seconds = self._proxy.idle_timeout
        try:
            return await self._proxy.then(Bridge(self._stream, upstream))
        finally:
            # After a relay there is nothing left to end.
            upstream.abort()

    async def _head(self, seconds: float | None) -> RequestHead | None:
        """The next request; None when the client has no further one."""
        seen = b""
        try:
            async with asyncio.timeout(seconds) as limit:
                seen = await self._stream.read()
                if not seen:
                    return None
                if self._proxy.head_timeout is not None and seconds != self._proxy.head_timeout:
                    now = asyncio.get_running_loop().time()
                    limit.reschedule(now + self._proxy.head_timeout)
                found, self._raw = await _message(
                    self._stream, seen, parse_request_head, "the head"
                )
                return found
        except TimeoutError as error:
            if not seen and seconds != self._proxy.head_timeout:
                # It had nothing more to ask for.
                return None
            raise PhaseTimeout("head", self._proxy.head_timeout or 0.0) from error

    async def _authenticate(self, head: RequestHead) -> None:
        auth = self._proxy.auth
        if auth is None:
            return
        given = head.values(b"proxy-authorization")
        if not given:
            if self._proxy.guest:
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
        self._stream.ext.insert(user)

    async def _hold(self) -> None:
        """Count this connection to its user, and find out which limits hold."""
        limits, user = self._proxy.limits, self._stream.ext.get(User)
        if limits is None or user is None or self._held == user.name:
            return
        self._release()
        limits.begin(user.name, self._stream.ext)
        self._held = user.name
        keys = await limits.rates(user.name)
        self._stream.ext.insert(Rates(keys))
        self._pace = Pace(await courier(), keys)

    def _release(self) -> None:
        held, self._held, self._pace = self._held, None, None
        if self._proxy.limits is not None and held is not None:
            self._proxy.limits.end(held)

    async def _tunnel(self, target: Address) -> Stream:
        self._let_go()
        self._release()
        stream = self._stream
        stream.ext.insert(Target(target))
        if self._proxy.lazy:
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
        seconds = self._proxy.connect_timeout
        async with within(seconds, "connect"):
            ext = self._stream.ext.fork()
            if self._asked is not None:
                ext.insert(self._asked)
            return await self._proxy.connect(ConnectTo(target, ext))

    async def _forward(self, head: RequestHead) -> bool:
        """One request and its answer; whether the client may ask for more."""
        try:
            if head.method == b"TRACE":
                raise RemoteProtocolError("TRACE is not forwarded", status=405)
            wanted = absolute_target(head)
            await self._hold()
            exchange: _Exchange | None = None
            if self._may_exchange(head, wanted.address):
                done = await self._exchange(wanted)
                if isinstance(done, bool):
                    return done
                exchange = done
            exchange = exchange or await self._begin(wanted, head)
        except Exception as error:
            await self._refuse(error, self._asked)
            raise
        return await exchange.answer()

    async def _begin(self, wanted: Absolute, head: RequestHead) -> _Exchange:
        framing = request_framing(head)
        text = forwarded_request(head, wanted.path, wanted.host, chunked=framing.kind == "chunked")
        self._stream.ext.insert(Target(wanted.address))
        return await self._ask(wanted.address, head, framing, text)

    def _may_exchange(self, head: RequestHead, target: Address) -> bool:
        """Whether this client asks the same server again, and nobody here needs to look."""
        kept = self._kept
        return (
            self._proxy.lower
            and kept is not None
            and self._kept_for == target
            and self._in_vain < _IN_VAIN
            and head.minor == 1
            and isinstance(kept, SocketStream)
            and isinstance(self._stream, SocketStream)
            and _is_quiet(kept)
        )

    async def _exchange(self, wanted: Absolute) -> bool | _Exchange | None:
        """Have the engine pass on the present request and those after it. Whether the client may
        ask for more, or the request that is to be answered here; None if the present one is still
        to do."""
        proxy, client, upstream = self._proxy, self._stream, self._kept
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
            self.tell(
                one["method"], wanted.address, one["status"], one["up"], one["down"], one["seconds"]
            )

        client.unread(self._raw)
        done = await exchanged(client, upstream, agreed, told if each else None)
        if done is None:
            self._in_vain = _IN_VAIN
            await client.read(len(self._raw))
            return None
        left = done.left
        if not each and done.requests:
            up = done.ended.up - (left.up if left is not None else 0)
            self.tell("", wanted.address, 0, up, done.ended.down, done.ended.seconds, done.requests)
        self._in_vain = 0 if done.requests else self._in_vain + 1
        if upstream.closed:
            self._kept = None
        if left is None or client.closed or left.why == "idle":
            return False
        if left.asked:
            return await self._resume(left, wanted.address, upstream)
        # What comes next is read and looked at like any other request.
        return True

    async def _resume(self, left: Left, target: Address, upstream: Stream) -> _Exchange:
        """Go on with a request that was passed on, and not answered in an ordinary way."""
        self._kept = None
        found = parse_request_head(left.asked)
        assert found is not NEED_MORE  # noqa: S101 - it was read before
        head = self._asked = found.value
        exchange = _Exchange(self, upstream, target, head, NO_BODY, passed=left.up)
        if left.why == "answer_timeout":
            await exchange.drop()
            raise PhaseTimeout("connect", self._proxy.answer_timeout or 0.0)
        try:
            await exchange.begin(b"")
        except (StreamBroken, IncompleteRead):
            if request_framing(head).kind != "none" or head.method not in _IDEMPOTENT:
                raise
            wanted = absolute_target(head)
            text = forwarded_request(head, wanted.path, wanted.host, chunked=False)
            return await self._ask(target, head, NO_BODY, text)
        return exchange

    async def up(self, count: int) -> None:
        """Bytes have gone to the server: wait until more may."""
        if self._pace is not None:
            await self._pace.spent(count, 0)

    async def down(self, count: int) -> None:
        if self._pace is not None:
            await self._pace.spent(0, count)

    def tell(
        self,
        method: str,
        target: Address,
        status: int,
        up: int,
        down: int,
        seconds: float,
        requests: int = 1,
    ) -> None:
        told = self._proxy.forwarded
        if told is not None:
            ext = self._stream.ext
            told(Forwarded(ext, method, target, status, up, down, seconds, requests))

    async def _ask(
        self, target: Address, head: RequestHead, framing: Framing, text: bytes
    ) -> _Exchange:
        """Send the head on a connection to the target and read the beginning of the answer.

        A kept connection may have been closed by its server at this very moment: what can be asked
        twice is asked again on a new one.
        """
        if self._kept is not None and (self._kept_for != target or not _is_quiet(self._kept)):
            self._let_go()
        upstream, self._kept = self._kept, None
        again = upstream is not None and framing.kind == "none" and head.method in _IDEMPOTENT
        if upstream is not None:
            exchange = _Exchange(self, upstream, target, head, framing)
            try:
                await exchange.begin(text)
            except (StreamBroken, IncompleteRead):
                if not again:
                    raise
            else:
                return exchange
        exchange = _Exchange(self, await self._dial(target), target, head, framing)
        await exchange.begin(text)
        return exchange

    async def _refuse(self, error: Exception, head: RequestHead | None) -> None:
        """Say what is wrong, to whoever still listens."""
        if isinstance(error, StreamBroken) or (
            isinstance(error, IncompleteRead) and not error.partial
        ):
            error = ConnectError("the server broke the connection", kind="reset")
        text = page_for(error, head_only=head is not None and head.method == b"HEAD")
        with suppress(StackError, TimeoutError):
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                await self._stream.write(text)
                await self._stream.write_eof()
                if not isinstance(error, StackError):
                    # Our own mistake resets the connection: not before this was read.
                    await self._stream.aclose()


class _Exchange:
    """One request on its way to a server, and the answer to it."""

    __slots__ = (
        "_began",
        "_client",
        "_framing",
        "_head",
        "_response",
        "_target",
        "_up",
        "_upload",
        "_upstream",
    )

    def __init__(
        self,
        client: _Client,
        upstream: Stream,
        target: Address,
        head: RequestHead,
        framing: Framing,
        passed: int = 0,
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._target = target
        self._head = head
        self._framing = framing
        self._response: ResponseHead | None = None
        self._upload: asyncio.Task[int] | None = None
        self._up = passed
        """Bytes that have gone on."""
        self._began = asyncio.get_running_loop().time()

    async def begin(self, text: bytes) -> None:
        """The head, the body as it comes, and the head of the final answer."""
        proxy = self._client._proxy
        try:
            await self._upstream.write(text)
            self._up += len(text)
            await self._client.up(len(text))
            if self._framing.kind != "none":
                # Beside the answer, which may come before the body is through.
                self._upload = asyncio.get_running_loop().create_task(self._send_body())
            async with asyncio.timeout(None) as limit:
                if proxy.answer_timeout is not None and self._upload is None:
                    limit.reschedule(self._began + proxy.answer_timeout)
                self._response = await self._answer_head()
        except TimeoutError as error:
            await self.drop()
            raise PhaseTimeout("connect", proxy.answer_timeout or 0.0) from error
        except BaseException:
            await self.drop()
            raise

    async def drop(self) -> None:
        self._upstream.abort()
        if self._upload is not None:
            self._upload.cancel()
            await asyncio.wait({self._upload})
            if not self._upload.cancelled():
                self._upload.exception()

    async def _send_body(self) -> int:
        try:
            return await carry(
                self._client._stream,
                self._upstream,
                self._framing,
                idle=self._client._proxy.idle_timeout,
                passed=self._client.up,
            )
        except (IncompleteRead, PhaseTimeout, RemoteProtocolError):
            # The server must not take for whole what is not, nor wait for what never comes.
            self._upstream.abort()
            raise

    async def _answer_head(self) -> ResponseHead:
        seen = b""
        while True:
            if not seen:
                seen = await self._upstream.read()
                if not seen:
                    raise IncompleteRead("the server said nothing")
            try:
                head, _ = await _message(
                    self._upstream, seen, parse_response_head, "the answer's head"
                )
            except IncompleteRead as error:
                raise StreamBroken("the server broke off its answer", reset=False) from error
            if head.status >= 200 or head.status == 101:
                return head
            # Interim answers go on as they are; old clients would take them for the final one.
            if self._head.minor:
                await self._client._stream.write(
                    forwarded_response(head, chunked=False, close=False, old_client=False)
                )
            seen = b""

    async def answer(self) -> bool:
        """Pass the answer on; whether the client may ask for more."""
        client, response = self._client, self._response
        assert response is not None  # noqa: S101 - begin() came before
        down = 0
        try:
            if response.status == 101:
                if wants_upgrade(self._head) is None:
                    raise RemoteProtocolError("the server changed the protocol unasked", status=502)
                await self._upgraded(response)
                return False
            framing = response_framing(response, self._head.method)
        except Exception as error:
            await self.drop()
            await client._refuse(error, self._head)
            raise
        try:
            # What was not read of the body can't be told from the next request.
            unread = self._upload is not None and not self._upload.done()
            if unread:
                await asyncio.sleep(0)
                unread = self._upload is not None and not self._upload.done()
            old = self._head.minor == 0
            dechunk = old and framing.kind == "chunked"
            close = unread or dechunk or framing.kind == "until end" or not _keeps_alive(self._head)
            text = forwarded_response(
                response,
                chunked=framing.kind == "chunked" and not dechunk,
                close=close,
                old_client=old,
            )
            # A body that has come with its head goes on with it.
            together = framing.kind != "none" and self._upstream.has_unread
            if not together:
                await client._stream.write(text)
                await client.down(len(text))
            down = len(text)
            down += await carry(
                self._upstream,
                client._stream,
                framing,
                idle=client._proxy.answer_timeout,
                payload_only=dechunk,
                status=502,
                before=text if together else b"",
                passed=client.down,
            )
            if self._upload is not None and self._upload.done():
                self._up += self._upload.result()
                self._upload = None
            if unread or framing.kind == "until end" or not _server_keeps_alive(response):
                await self.drop()
            else:
                client._kept, client._kept_for = self._upstream, self._target
            return not close
        except BaseException:
            await self.drop()
            raise
        finally:
            self._tell(response.status, down)

    async def _upgraded(self, response: ResponseHead) -> None:
        client = self._client
        await client._stream.write(
            forwarded_response(response, chunked=False, close=False, old_client=False)
        )
        try:
            await client._proxy.then(Bridge(client._stream, self._upstream))
        finally:
            self._upstream.abort()

    def _tell(self, status: int, down: int) -> None:
        seconds = asyncio.get_running_loop().time() - self._began
        method = self._head.method.decode("ascii")
        self._client.tell(method, self._target, status, self._up, down, seconds)


async def _message(stream: Stream, seen: bytes, parse: Parser[T], what: str) -> tuple[T, bytes]:
    """One head, and its bytes; what follows it stays in the stream."""
    while True:
        found = parse(seen)
        if found is not NEED_MORE:
            stream.unread(seen[found.size :])
            return found.value, seen[: found.size]
        more = await stream.read()
        if not more:
            raise IncompleteRead(f"{what} was cut short", partial=seen)
        seen += more
        while b"\n" not in more and len(seen) <= HEAD_CAP:
            # No line has ended, so nothing could have changed: who sends single bytes does not
            # make us read the whole again for each of them.
            more = await stream.read()
            if not more:
                raise IncompleteRead(f"{what} was cut short", partial=seen)
            seen += more


def _keeps_alive(head: RequestHead) -> bool:
    said = head.listed(b"connection") | head.listed(b"proxy-connection")
    return b"close" not in said if head.minor else b"keep-alive" in said


def _server_keeps_alive(head: ResponseHead) -> bool:
    said = head.listed(b"connection")
    return b"close" not in said if head.minor else b"keep-alive" in said


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
