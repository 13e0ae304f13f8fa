"""One request that Python forwards, and the answer to it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qanat.proxy.http.body import carry
from qanat.proxy.http.heads import read_head
from qanat.proxy.http.hop_by_hop import (
    client_keeps_alive,
    forwarded_response,
    server_keeps_alive,
    wants_upgrade,
)
from qanat.stack.address import Address
from qanat.stack.bridge import Bridge
from qanat.stack.codec.http1 import (
    Framing,
    RequestHead,
    ResponseHead,
    parse_response_head,
    response_framing,
)
from qanat.stack.errors import (
    IncompleteRead,
    PhaseTimeout,
    RemoteProtocolError,
    StreamBroken,
)
from qanat.stack.extensions import Extensions
from qanat.stack.stream.base import Stream

if TYPE_CHECKING:
    from qanat.proxy.http.client import Client

__all__ = ["Forwarded", "Forwarding"]


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
    """Those that the engine has exchanged are told together when that ends, without method and
    status; before, each of them is, as far as anybody wants that."""
    live: bool = False
    """Whether it is such a one, and will be counted with the others."""


class Forwarding:
    """One request on its way to a server, and the answer to it."""

    __slots__ = (
        "_began",
        "_client",
        "_framing",
        "_head",
        "_last",
        "_response",
        "_target",
        "_up",
        "_upload",
        "_upstream",
    )

    def __init__(
        self,
        client: Client,
        upstream: Stream,
        target: Address,
        head: RequestHead,
        framing: Framing,
        passed: int = 0,
        last: bool = False,
    ) -> None:
        """``passed`` bytes have gone on before. The ``last`` one on its connection to the server is
        so whatever that says."""
        self._client = client
        self._upstream = upstream
        self._target = target
        self._head = head
        self._framing = framing
        self._last = last
        self._response: ResponseHead | None = None
        self._upload: asyncio.Task[int] | None = None
        self._up = passed
        """Bytes that have gone on."""
        self._began = asyncio.get_running_loop().time()

    async def begin(self, text: bytes) -> None:
        """The head, the body as it comes, and the head of the final answer."""
        proxy = self._client.proxy
        try:
            await self._client.up(len(text))
            await self._upstream.write(text)
            self._up += len(text)
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
                self._client.stream,
                self._upstream,
                self._framing,
                idle=self._client.proxy.idle_timeout,
                passing=self._client.up,
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
                head, _ = await read_head(
                    self._upstream, seen, parse_response_head, "the answer's head"
                )
            except IncompleteRead as error:
                raise StreamBroken("the server broke off its answer", reset=False) from error
            if head.status >= 200 or head.status == 101:
                return head
            # Interim answers go on as they are; old clients would take them for the final one.
            if self._head.minor:
                await self._client.stream.write(
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
            await client.refuse(error, self._head)
            raise
        try:
            # What was not read of the body can't be told from the next request.
            unread = self._upload is not None and not self._upload.done()
            if unread:
                await asyncio.sleep(0)
                unread = self._upload is not None and not self._upload.done()
            old = self._head.minor == 0
            dechunk = old and framing.kind == "chunked"
            close = (
                unread
                or dechunk
                or framing.kind == "until end"
                or not client_keeps_alive(self._head)
            )
            text = forwarded_response(
                response,
                chunked=framing.kind == "chunked" and not dechunk,
                close=close,
                old_client=old,
            )
            # A body that has come with its head goes on with it.
            together = framing.kind != "none" and self._upstream.has_unread
            if not together:
                await client.down(len(text))
                await client.stream.write(text)
            down = len(text)
            down += await carry(
                self._upstream,
                client.stream,
                framing,
                idle=client.proxy.answer_timeout,
                payload_only=dechunk,
                status=502,
                before=text if together else b"",
                passing=client.down,
            )
            if self._upload is not None and self._upload.done():
                self._up += self._upload.result()
                self._upload = None
            ends = self._last or framing.kind == "until end" or not server_keeps_alive(response)
            if unread or ends:
                await self.drop()
            else:
                client.keep(self._upstream, self._target)
            return not close
        except BaseException:
            await self.drop()
            raise
        finally:
            self._tell(response.status, down)

    async def _upgraded(self, response: ResponseHead) -> None:
        client = self._client
        # It is counted as a tunnel from here on.
        client.release()
        await client.stream.write(
            forwarded_response(response, chunked=False, close=False, old_client=False)
        )
        try:
            await client.proxy.then(Bridge(client.stream, self._upstream))
        finally:
            self._upstream.abort()

    def _tell(self, status: int, down: int) -> None:
        seconds = asyncio.get_running_loop().time() - self._began
        method = self._head.method.decode("ascii")
        self._client.tell(method, self._target, status, self._up, down, seconds)
