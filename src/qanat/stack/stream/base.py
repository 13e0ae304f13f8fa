"""The contract of every stream.

A stream is two directions of bytes with an end each. What is read before its time is put back with
:meth:`Stream.unread` and comes out first at the next reader, whoever that is. One task reads and
one writes at a time; a second one is a mistake and told so.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

from qanat.stack.errors import ConcurrentUse, IncompleteRead, LocalProtocolError
from qanat.stack.extensions import Extensions

__all__ = ["CHUNK", "Detached", "Stream"]

CHUNK: Final = 65536
"""How much a read asks for when nobody says."""


@dataclass(slots=True)
class Detached:
    """A socket taken out of its stream, and the bytes that were read from it and not consumed."""

    socket: socket.socket
    unread: bytes


class Stream(ABC):
    """Bytes both ways.

    Classes below implement ``_receive``, ``_send``, ``_send_eof``, ``_close`` and ``abort``.
    """

    __slots__ = ("_reading", "_unread", "_writing", "ext")

    def __init__(self, ext: Extensions | None = None) -> None:
        self.ext: Extensions = Extensions() if ext is None else ext
        self._unread = b""
        self._reading = False
        self._writing = False

    async def read(self, max_bytes: int = CHUNK) -> bytes:
        """1 to ``max_bytes`` bytes, or ``b""`` at the end, again and again.

        Raises StreamBroken when the peer resets.
        """
        if self._reading:
            raise ConcurrentUse("reading")
        if self._unread:
            taken, self._unread = self._unread[:max_bytes], self._unread[max_bytes:]
            return taken
        self._reading = True
        try:
            return await self._receive(max_bytes)
        finally:
            self._reading = False

    async def read_exactly(self, count: int) -> bytes:
        """``count`` bytes, or IncompleteRead with what came before the end."""
        parts: list[bytes] = []
        missing = count
        while missing:
            part = await self.read(missing)
            if not part:
                had = b"".join(parts)
                raise IncompleteRead(
                    f"the stream ended after {len(had)} of {count} bytes", partial=had
                )
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    async def peek(self, more_than: int = 0, max_bytes: int = CHUNK) -> bytes:
        """What comes next, without taking it: more than ``more_than`` bytes, unless the end comes.

        Waits only when no more than that is there. ``b""`` (or nothing new) means the end.
        """
        if len(self._unread) <= more_than and len(self._unread) < max_bytes:
            seen = self._unread
            if self._reading:
                raise ConcurrentUse("reading")
            self._reading = True
            try:
                new = await self._receive(max_bytes - len(seen))
            finally:
                self._reading = False
            self._unread = seen + new if seen else new
        return self._unread

    @property
    def has_unread(self) -> bool:
        """Whether something was put back, so that a read does not wait."""
        return bool(self._unread)

    def unread(self, data: bytes) -> None:
        """Put bytes back: the next read begins with them."""
        if self._reading:
            raise ConcurrentUse("reading")
        if data:
            self._unread = data + self._unread if self._unread else bytes(data)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Returns when the bytes were accepted under back-pressure; a buffer may be reused then."""
        if self._writing:
            raise ConcurrentUse("writing")
        if not data:
            return
        self._writing = True
        try:
            await self._send(data)
        finally:
            self._writing = False

    async def write_eof(self) -> None:
        """End our direction; the other one goes on. Idempotent."""
        if self._writing:
            raise ConcurrentUse("writing")
        self._writing = True
        try:
            await self._send_eof()
        finally:
            self._writing = False

    async def aclose(self) -> None:
        """An orderly end within a small cap; idempotent, never raises but for cancellation."""
        await self._close()

    @abstractmethod
    async def _receive(self, max_bytes: int) -> bytes: ...

    @abstractmethod
    async def _send(self, data: bytes | bytearray | memoryview) -> None: ...

    @abstractmethod
    async def _send_eof(self) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...

    @abstractmethod
    def abort(self) -> None:
        """Reset now; idempotent, never raises."""

    @property
    def can_half_close(self) -> bool:
        return True

    @property
    def below(self) -> Stream | None:
        """The stream that carries this one: TCP under TLS, for instance."""
        return None

    def detach(self) -> Detached:
        """Take the plain socket out, for whoever moves bytes natively; the stream is dead then.

        Raises LocalProtocolError where there is no plain socket, or where a task uses it.
        """
        raise LocalProtocolError(f"{type(self).__name__} has no plain socket to give away")
