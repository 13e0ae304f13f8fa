"""TLS as a pure engine over any stream: TCP, memory, or TLS itself.

Bytes that were read before the handshake are its first ones, and the end of one direction is a
close_notify that leaves the other one open. A peer that ends without a close_notify has ended all
the same; :attr:`TlsStream.truncated` tells.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import Final

from qanat.stack.errors import LocalProtocolError, StackError, StreamBroken, TlsError
from qanat.stack.stream.base import CHUNK, Stream

__all__ = ["TlsStream", "meaning", "shake_hands"]

_CLOSE_CAP: Final = 0.25
"""Seconds that saying goodbye to a peer which does not read may take."""
_PIECE: Final = 65536
"""Bytes that are encrypted at a time, and wait for the stream below."""
_EXCUSE: Final = b"This port speaks TLS: ask for it by https://\n"
_PLAIN_HTTP: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_EXCUSE), _EXCUSE)
)


class TlsStream(Stream):
    """What is inside of TLS over ``below``; made by :func:`shake_hands`."""

    __slots__ = (
        "_below",
        "_closed",
        "_encrypted",
        "_failed",
        "_finished",
        "_flushing",
        "_plain",
        "_received",
        "_session",
        "_truncated",
    )

    def __init__(
        self,
        below: Stream,
        session: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        super().__init__(below.ext)
        self._below = below
        self._session = session
        self._received = incoming
        self._encrypted = outgoing
        self._plain = b""
        self._flushing = asyncio.Lock()
        self._finished = False
        self._closed = False
        self._truncated = False
        self._failed: StackError | None = None

    @property
    def below(self) -> Stream:
        return self._below

    @property
    def session(self) -> ssl.SSLObject:
        """What was agreed on, by the names of the standard library."""
        return self._session

    @property
    def truncated(self) -> bool:
        """Whether the peer ended without saying so in TLS: perhaps somebody cut it off."""
        return self._truncated

    @property
    def closed(self) -> bool:
        return self._closed

    async def _receive(self, max_bytes: int) -> bytes:
        if self._plain:
            taken, self._plain = self._plain[:max_bytes], self._plain[max_bytes:]
            return taken
        while True:
            self._check()
            try:
                data = self._session.read(max_bytes)
            except ssl.SSLWantReadError:
                # An answer to what came may be due: a new key, for instance. Who writes already
                # takes it along, and may wait for us to read.
                if not self._flushing.locked():
                    await self._flush()
                if not await self._fetch():
                    self._truncated = True
                    return b""
                continue
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLEOFError:
                self._truncated = True
                return b""
            except ssl.SSLError as error:
                raise await self._break(error) from error
            return data

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        left = memoryview(data)
        if left.itemsize != 1 or left.ndim != 1:
            left = left.cast("B")
        while left:
            self._check()
            if self._finished:
                raise LocalProtocolError("written after the end")
            try:
                count = self._session.write(left[:_PIECE])
            except ssl.SSLError as error:
                raise await self._break(error) from error
            left = left[count:]
            await self._flush()

    async def _send_eof(self) -> None:
        if self._finished:
            return
        self._check()
        self._finished = True
        self._say_end()
        await self._flush()

    def _say_end(self) -> None:
        # The library looks for the peer's end as well, and takes other records that are there for
        # a mistake: they are decrypted before.
        with suppress(ssl.SSLError):
            while more := self._session.read(_PIECE):
                self._plain += more
        with suppress(ssl.SSLError):
            self._session.unwrap()

    async def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._unread = self._plain = b""
        if self._failed is None and not self._finished:
            self._finished = True
            self._say_end()
            with suppress(StackError, TimeoutError):
                async with asyncio.timeout(_CLOSE_CAP):
                    await self._flush()
        await self._below.aclose()

    def abort(self) -> None:
        self._closed = True
        self._unread = self._plain = b""
        self._below.abort()

    def _check(self) -> None:
        if self._closed:
            raise LocalProtocolError("the stream is closed")
        if self._failed is not None:
            raise self._failed

    async def _fetch(self) -> bool:
        """Whether encrypted bytes came; not so at the end of the stream below."""
        data = await self._below.read(CHUNK)
        if data:
            self._received.write(data)
        else:
            self._received.write_eof()
        return bool(data)

    async def _flush(self) -> None:
        """Give on what is encrypted, in order, whoever made it."""
        if not self._encrypted.pending:
            return
        async with self._flushing:
            while data := self._encrypted.read():
                try:
                    await self._below.write(data)
                except asyncio.CancelledError:
                    # Nobody knows how much of a record has gone.
                    self._failed = StreamBroken("a write was cancelled midway", reset=False)
                    raise

    async def _break(self, error: ssl.SSLError) -> StackError:
        """Nothing goes on after this; the peer is told why, if it still listens."""
        self._failed = meaning(error)
        with suppress(StackError, TimeoutError):
            async with asyncio.timeout(_CLOSE_CAP):
                await self._flush()
        return self._failed

    def __repr__(self) -> str:
        return f"<TlsStream over {self._below!r}>"


async def shake_hands(
    below: Stream, context: ssl.SSLContext, *, server_side: bool, server_name: str | None = None
) -> TlsStream:
    """The handshake in either role. ``below`` stays the caller's when it fails.

    :raises TlsError: there is nothing in common, or one side does not trust the other.
    :raises StreamBroken: the peer has gone.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        session = context.wrap_bio(
            incoming, outgoing, server_side=server_side, server_hostname=server_name
        )
    except ValueError as error:
        raise TlsError(f"{server_name!r} can't be the name of a server") from error
    stream = TlsStream(below, session, incoming, outgoing)
    while True:
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            await stream._flush()
            if not await stream._fetch():
                raise StreamBroken("the peer ended within the TLS handshake", reset=False) from None
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                # What is written is no alert: who speaks HTTP could not read it.
                outgoing.read()
                outgoing.write(_PLAIN_HTTP)
            raise await stream._break(error) from error
        else:
            await stream._flush()
            return stream


def meaning(error: ssl.SSLError) -> TlsError:
    """In words for people; ``alert`` is the peer's, if it sent one."""
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsError(f"the certificate is not trusted: {error.verify_message.rstrip('.')}")
    if reason == "HTTP_REQUEST":
        return TlsError("the client speaks plain HTTP")
    _, found, alert = reason.partition("_ALERT_")
    words = (alert if found else reason).lower().replace("_", " ") or "it failed"
    if found:
        return TlsError(f"the peer refused: {words}", alert=words)
    return TlsError(f"TLS: {words}")
