"""Streams over plain sockets: TCP and Unix.

The socket is our own and non-blocking; the event loop only tells when it is ready. Compared with a
transport and a protocol this saves objects and calls for each connection, nothing is ever read that
nobody asked for, and the socket can be taken out at any moment.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from contextlib import suppress
from typing import Final

from qanat.stack.errors import ConcurrentUse, LocalProtocolError, StreamBroken
from qanat.stack.extensions import Extensions
from qanat.stack.stream.base import Detached, Stream

__all__ = ["SocketStream", "TcpStream", "UnixStream", "broken", "detach_both"]

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_LOST: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})
_IN_A_ROW: Final = 16
"""Reads that need not wait before others get their turn."""

CLOSE_SECONDS: Final = 0.5
"""How long an orderly end waits for the peer's: a socket closed with bytes on their way to it
resets, and a reset may overtake the last bytes that we wrote."""

_CLOSE_BYTES: Final = 256 * 1024
"""Of what a peer still sends then, before it is cut off."""


def broken(error: OSError) -> StreamBroken:
    """What an error of a connected socket means."""
    reset = error.errno in _LOST
    return StreamBroken(error.strerror or str(error), reset=reset)


class SocketStream(Stream):
    """Over one connected stream socket, which it owns."""

    __slots__ = (
        "_ended",
        "_fd",
        "_finished",
        "_loop",
        "_reader",
        "_row",
        "_sock",
        "_wanted",
        "_watched",
        "_writer",
    )

    def __init__(
        self,
        sock: socket.socket,
        ext: Extensions | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """The socket must be non-blocking."""
        super().__init__(ext)
        self._sock: socket.socket | None = sock
        self._fd = sock.fileno()
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._reader: asyncio.Future[bytes] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._wanted = 0
        self._watched = False
        self._row = 0
        self._ended = False
        """Whether the peer's end was read."""
        self._finished = False
        """Whether our end was sent."""

    @property
    def raw(self) -> socket.socket:
        """To look at and for options; bytes go by the stream."""
        return self._live()

    @property
    def closed(self) -> bool:
        return self._sock is None

    def _live(self) -> socket.socket:
        if self._sock is None:
            raise LocalProtocolError("the stream is closed, or its socket was taken out")
        return self._sock

    async def _receive(self, max_bytes: int) -> bytes:
        sock = self._live()
        self._row += 1
        if self._row > _IN_A_ROW:
            self._row = 0
            await asyncio.sleep(0)
            sock = self._live()
        try:
            data = sock.recv(max_bytes)
        except (BlockingIOError, InterruptedError):
            self._row = 0
        except OSError as error:
            raise broken(error) from error
        else:
            if not data:
                self._ended = True
            return data
        self._wanted = max_bytes
        waiter: asyncio.Future[bytes] = self._loop.create_future()
        self._reader = waiter
        if not self._watched:
            self._watched = True
            self._loop.add_reader(self._fd, self._readable)
        try:
            return await waiter
        except asyncio.CancelledError:
            # What came in the same turn as the cancellation belongs to the next reader, behind
            # what a peek has seen already.
            if not waiter.cancelled() and waiter.done() and waiter.exception() is None:
                self._unread += waiter.result()
            raise
        finally:
            self._reader = None

    def _readable(self) -> None:
        """Reads here and not in the task that waits: the loop would call again before that runs."""
        waiter = self._reader
        if waiter is None or waiter.done():
            # Nobody waits, and the loop would call again and again.
            self._unwatch()
            return
        assert self._sock is not None  # noqa: S101 - nobody is called after it was let go
        try:
            data = self._sock.recv(self._wanted)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            waiter.set_exception(broken(error))
            return
        if not data:
            self._ended = True
            self._unwatch()
        waiter.set_result(data)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._fd)

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        sock = self._live()
        try:
            sent = sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            raise broken(error) from error
        if sent == len(data):
            return
        left = memoryview(data)
        if left.itemsize != 1:
            left = left.cast("B")
        left = left[sent:]
        while left:
            await self._room()
            try:
                left = left[self._live().send(left) :]
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                raise broken(error) from error

    async def _room(self) -> None:
        waiter = self._writer = self._loop.create_future()
        self._loop.add_writer(self._fd, self._writable)
        try:
            await waiter
        finally:
            if self._writer is not None:
                self._writer = None
                self._loop.remove_writer(self._fd)

    def _writable(self) -> None:
        waiter = self._writer
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _send_eof(self) -> None:
        if self._finished:
            return
        sock = self._live()
        self._finished = True
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise broken(error) from error

    async def _close(self) -> None:
        sock = self._sock
        if sock is None:
            return
        if self._reader is not None or self._writer is not None:
            # Somebody still uses it: whoever closes it does not mean to wait for them.
            self.abort()
            return
        try:
            if not self._ended:
                if not self._finished:
                    self._finished = True
                    sock.shutdown(socket.SHUT_WR)
                await self._read_away(sock)
        except (OSError, StreamBroken, TimeoutError):
            pass
        finally:
            self._let_go()

    async def _read_away(self, sock: socket.socket) -> None:
        self._unread = b""
        left = _CLOSE_BYTES
        async with asyncio.timeout(CLOSE_SECONDS):
            while left > 0 and (data := await self._receive(65536)):
                left -= len(data)

    def abort(self) -> None:
        if self._sock is None:
            return
        # An error means that there is no connection any more: nothing to reset.
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._let_go()

    def _let_go(self) -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return
        self._forget()
        self._unread = b""
        sock.close()

    def _forget(self) -> None:
        """Take the loop's eyes from the socket, and tell those who wait."""
        self._unwatch()
        if self._writer is not None:
            self._loop.remove_writer(self._fd)
            writer, self._writer = self._writer, None
            if not writer.done():
                writer.set_exception(StreamBroken("closed by ourselves", reset=False))
        if self._reader is not None and not self._reader.done():
            self._reader.set_exception(StreamBroken("closed by ourselves", reset=False))

    def detach(self) -> Detached:
        sock = self._live()
        if self._reading or self._reader is not None:
            raise ConcurrentUse("reading")
        if self._writing or self._writer is not None:
            raise ConcurrentUse("writing")
        self._unwatch()
        self._sock = None
        unread, self._unread = self._unread, b""
        return Detached(sock, unread)

    def reattach(self, detached: Detached) -> None:
        """Undo :meth:`detach`, when nobody wanted the socket after all."""
        self._sock = detached.socket
        self._unread = detached.unread

    def now(self, *, ended: bool, finished: bool) -> None:
        """How far both directions are, after somebody else used the socket."""
        self._ended, self._finished = ended, finished

    @property
    def ended(self) -> bool:
        """Whether the peer's end was read."""
        return self._ended

    @property
    def finished(self) -> bool:
        """Whether our end was sent."""
        return self._finished

    def __repr__(self) -> str:
        if self._sock is None:
            return f"<{type(self).__name__} closed>"
        return f"<{type(self).__name__} fd={self._fd}>"


def detach_both(one: SocketStream, other: SocketStream) -> tuple[Detached, Detached]:
    """Both sockets or, when one can't be had, neither."""
    first = one.detach()
    try:
        return first, other.detach()
    except BaseException:
        one.reattach(first)
        raise


class TcpStream(SocketStream):
    """Over a TCP connection."""

    __slots__ = ()


class UnixStream(SocketStream):
    """Over a Unix stream socket."""

    __slots__ = ()
