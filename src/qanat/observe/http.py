"""A small HTTP/1.1 server on asyncio for our own pages: control, metrics, status.

h11 does the protocol; this file does the I/O and sets the bounds: connections, size of head and
body, time for a head, for a body, for silence and for a slow reader. A peer can't make it hold
more than that, nor raise anything but an answer. It knows nothing of what it serves: a handler
turns a request into a response.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

__all__ = ["Bounds", "Handler", "Request", "Response", "Server", "json_response", "text_response"]

_logger = logging.getLogger("qanat.http")


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    """Decoded, without the query."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case; of repeated ones the last."""
    body: bytes
    client: str | None
    """``ip:port`` of the peer; None on a Unix socket."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    """An iterator is sent piece by piece as it yields, and closed if the peer goes away."""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]


def text_response(text: str, status: int = 200) -> Response:
    return Response(status, text.encode())


def json_response(value: Any, status: int = 200) -> Response:
    body = json.dumps(value, ensure_ascii=False).encode() + b"\n"
    return Response(status, body, "application/json")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one server may be made to hold. Times are seconds."""

    connections: int = 64
    """More than these are answered 503 and closed."""
    head: int = 16 * 1024
    body: int = 64 * 1024
    head_time: float = 5.0
    """For the first byte of a connection and the whole head and body of each request."""
    idle_time: float = 30.0
    """For the next request of a connection."""
    write_time: float = 10.0
    """For a reader to take what is buffered."""


_READ_SIZE: Final = 16 * 1024
_WRITE_SIZE: Final = 256 * 1024
_ROUNDS_TO_SETTLE: Final = 5
"""Being taken, becoming a transport, being refused, closing: each needs a round of the loop."""


class _Refused(Exception):
    """The request can't be served; the connection ends with this answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _PeerGone(Exception):
    """Nobody is left to answer to."""


class Server:
    """Serves one handler on any number of listening sockets.

    The listening sockets are owned from :meth:`serve` on and closed by :meth:`close`, which also
    cancels what is still being answered.
    """

    def __init__(
        self, handler: Handler, *, bounds: Bounds | None = None, name: str = "http"
    ) -> None:
        self._handler = handler
        self._bounds = bounds or Bounds()
        self._name = name
        self._servers: list[asyncio.Server] = []
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._closing = False

    async def serve(self, listener: socket.socket) -> None:
        """Serve a bound stream socket (it need not listen yet), TCP or Unix."""
        listener.setblocking(False)
        if listener.family == socket.AF_UNIX:
            server: asyncio.Server = await asyncio.start_unix_server(self._accepted, sock=listener)
        else:
            server = await asyncio.start_server(self._accepted, sock=listener)
        self._servers.append(server)

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    async def close(self) -> None:
        self._closing = True
        loop = asyncio.get_running_loop()
        for server in self._servers:
            for listener in server.sockets:
                loop.remove_reader(listener.fileno())
        # Connections taken in the last moment: before Python 3.12 asyncio leaks those that are
        # still on their way to us when their server closes.
        await _settle()
        for server in self._servers:
            server.close()
        self._servers.clear()
        while self._connections:
            for task in self._connections:
                task.cancel()
            await asyncio.wait(self._connections)
        await _settle()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        crowded = len(self._connections) >= self._bounds.connections
        connection = _Connection(reader, writer, self._handler, self._bounds)
        if self._closing or len(self._connections) >= 2 * self._bounds.connections:
            # Even saying no takes a task for a moment: past that, no answer at all.
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(
            connection.turn_away() if crowded else connection.run(), name=f"{self._name} connection"
        )
        self._connections[task] = writer
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Also for tasks that were cancelled before they ran their first line."""
        writer = self._connections.pop(task)
        if self._closing and writer.transport.get_write_buffer_size():
            writer.transport.abort()
        else:
            writer.close()


async def _settle() -> None:
    for _ in range(_ROUNDS_TO_SETTLE):
        await asyncio.sleep(0)


class _Connection:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handler: Handler,
        bounds: Bounds,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._bounds = bounds
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=bounds.head)
        self._client = _peer_name(writer)

    async def run(self) -> None:
        """Answer requests until either side has had enough. Never raises but when cancelled."""
        try:
            patience = self._bounds.head_time
            while await self._answer_one(patience):
                self._protocol.start_next_cycle()
                patience = self._bounds.idle_time
            await self._leave()
        except (_PeerGone, OSError):
            self._writer.transport.abort()

    async def turn_away(self) -> None:
        try:
            await self._send_last("too many connections\n", 503)
            await self._leave()
        except (_PeerGone, OSError):
            self._writer.transport.abort()

    async def _answer_one(self, patience: float) -> bool:
        """Whether the connection can go on with another request."""
        try:
            request = await self._read_request(patience)
        except _Refused as refused:
            await self._send_last(f"{refused}\n", refused.status)
            return False
        if request is None:
            return False
        try:
            response = await self._handler(request)
        except Exception:
            _logger.exception("answering %s %s failed", request.method, request.path)
            response = text_response("internal error; see the log\n", 500)
        await self._send(response, head_only=request.method == "HEAD")
        return self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE

    async def _read_request(self, patience: float) -> Request | None:
        """None at an orderly end between two requests, or silence in place of a request."""
        try:
            async with asyncio.timeout(patience):
                first = await self._first_bytes()
        except TimeoutError:
            return None
        if not first:
            return None
        try:
            async with asyncio.timeout(self._bounds.head_time):
                return await self._rest_of_request()
        except TimeoutError:
            raise _Refused(408, "the request took too long") from None
        except h11.RemoteProtocolError as error:
            raise _Refused(error.error_status_hint, "not a request we understand") from None

    async def _first_bytes(self) -> bool:
        held, closed = self._protocol.trailing_data
        if held or closed:
            return bool(held)
        received = await self._receive()
        return bool(received)

    async def _rest_of_request(self) -> Request:
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            raise _PeerGone
        if head.method == b"CONNECT":
            # Agreeing to it would be the end of HTTP on this connection.
            raise _Refused(405, "no tunnels here")
        if self._protocol.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            await self._write(self._protocol.send(go_on))
        body = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            if len(body) > self._bounds.body:
                raise _Refused(413, "the body is too large")
        if not isinstance(event, h11.EndOfMessage):
            raise _PeerGone
        return _request(head, bytes(body), self._client)

    async def _next_event(self) -> object:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            await self._receive()
        return event

    async def _receive(self) -> bytes:
        received = await self._reader.read(_READ_SIZE)
        self._protocol.receive_data(received)
        return received

    async def _send(self, response: Response, *, head_only: bool) -> None:
        body = response.body
        if isinstance(body, bytes):
            await self._send_bytes(response, body, head_only=head_only)
            return
        try:
            await self._write(self._protocol.send(_head(response, None)))
            if not head_only:
                async for piece in body:
                    await self._write(self._protocol.send(h11.Data(data=piece)))
            await self._write(self._protocol.send(h11.EndOfMessage()))
        finally:
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()

    async def _send_last(self, text: str, status: int) -> None:
        """Answer and promise no more, whatever state the request was left in."""
        if self._protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            raise _PeerGone
        await self._send_bytes(text_response(text, status), text.encode(), close=True)

    async def _send_bytes(
        self, response: Response, body: bytes, *, head_only: bool = False, close: bool = False
    ) -> None:
        out = self._protocol.send(_head(response, len(body), close=close)) or b""
        if not head_only:
            out += self._protocol.send(h11.Data(data=body)) or b""
        out += self._protocol.send(h11.EndOfMessage()) or b""
        await self._write(out)

    async def _write(self, data: bytes | None) -> None:
        view = memoryview(data or b"")
        for start in range(0, len(view), _WRITE_SIZE):
            self._writer.write(view[start : start + _WRITE_SIZE])
            try:
                async with asyncio.timeout(self._bounds.write_time):
                    await self._writer.drain()
            except TimeoutError:
                raise _PeerGone from None

    async def _leave(self) -> None:
        """Close so that what was written still arrives: end our side, let theirs run out briefly.

        Closing at once with their bytes unread would reset the connection and might take our
        answer away with it.
        """
        if self._writer.can_write_eof():
            self._writer.write_eof()
        left = 16 * _READ_SIZE
        try:
            async with asyncio.timeout(1.0):
                while left > 0 and (received := await self._reader.read(_READ_SIZE)):
                    left -= len(received)
        except TimeoutError:
            self._writer.transport.abort()


def _request(head: h11.Request, body: bytes, client: str | None) -> Request:
    target = head.target.decode("ascii", "replace")
    try:
        parts = urlsplit(target)
    except ValueError:
        raise _Refused(400, "not a path we understand") from None
    return Request(
        method=head.method.decode("ascii"),
        path=unquote(parts.path) or "/",
        query=dict(parse_qsl(parts.query, keep_blank_values=True)),
        headers={n.decode("latin-1"): v.decode("latin-1") for n, v in head.headers},
        body=body,
        client=client,
    )


def _head(response: Response, length: int | None, *, close: bool = False) -> h11.Response:
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", response.content_type),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        *response.headers.items(),
    ]
    if length is not None:
        headers.append(("Content-Length", str(length)))
    if close:
        headers.append(("Connection", "close"))
    return h11.Response(status_code=response.status, headers=headers)


def _peer_name(writer: asyncio.StreamWriter) -> str | None:
    name = writer.get_extra_info("peername")
    if not isinstance(name, tuple):
        return None
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
