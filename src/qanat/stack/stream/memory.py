"""Streams within the process: what tests and in-process services are connected by.

They behave as sockets do, back-pressure, half-close and reset included. With a chunk size, a read
gives no more than that at a time, which shows whoever takes a message for a read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from types import TracebackType
from typing import Self

from qanat.stack.address import Address
from qanat.stack.connect.target import ConnectTo
from qanat.stack.errors import ConnectError, LocalProtocolError, StackError, StreamBroken
from qanat.stack.extensions import Extensions
from qanat.stack.facts import Listener, Peer
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream

__all__ = ["MemoryNetwork", "MemoryStream", "memory_pipe"]


class _Way:
    """One direction: bytes that were written and not read."""

    __slots__ = ("capacity", "changed", "ended", "filled", "gone", "parts", "reset")

    def __init__(self, capacity: int) -> None:
        self.capacity: int = capacity
        self.parts: deque[bytes] = deque()
        self.filled: int = 0
        self.ended: bool = False
        self.gone: bool = False
        """Whether nobody will read any more."""
        self.reset: bool = False
        self.changed: set[asyncio.Future[None]] = set()

    def wake(self) -> None:
        for waiter in self.changed:
            if not waiter.done():
                waiter.set_result(None)
        self.changed.clear()

    async def wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self.changed.add(waiter)
        try:
            await waiter
        finally:
            self.changed.discard(waiter)


class MemoryStream(Stream):
    """One end of a pipe; made by :func:`memory_pipe`."""

    __slots__ = ("_chunk", "_closed", "_in", "_out")

    def __init__(self, incoming: _Way, outgoing: _Way, chunk: int | None, ext: Extensions) -> None:
        super().__init__(ext)
        self._in = incoming
        self._out = outgoing
        self._chunk = chunk
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    async def _receive(self, max_bytes: int) -> bytes:
        way = self._in
        if self._chunk is not None:
            max_bytes = min(max_bytes, self._chunk)
        while not way.parts:
            if self._closed:
                raise LocalProtocolError("the stream is closed")
            if way.reset:
                raise StreamBroken
            if way.ended:
                return b""
            await way.wait()
        part = way.parts.popleft()
        if len(part) > max_bytes:
            way.parts.appendleft(part[max_bytes:])
            part = part[:max_bytes]
        way.filled -= len(part)
        way.wake()
        return part

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        way, left = self._out, bytes(data)
        if way.ended:
            raise LocalProtocolError("written after the end")
        while left:
            if self._closed:
                raise LocalProtocolError("the stream is closed")
            if way.reset or way.gone:
                raise StreamBroken
            room = way.capacity - way.filled
            if room <= 0:
                await way.wait()
                continue
            way.parts.append(left[:room])
            way.filled += min(len(left), room)
            left = left[room:]
            way.wake()

    async def _send_eof(self) -> None:
        if self._closed:
            raise LocalProtocolError("the stream is closed")
        self._out.ended = True
        self._out.wake()

    async def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._unread = b""
        self._out.ended = True
        # What the peer has not been read of is lost, as with a socket: its writes fail from now on.
        self._in.gone = True
        self._in.parts.clear()
        self._in.filled = 0
        self._out.wake()
        self._in.wake()

    def abort(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._unread = b""
        for way in (self._in, self._out):
            way.reset = True
            way.parts.clear()
            way.filled = 0
            way.wake()


def memory_pipe(
    capacity: int = 65536, chunk: int | None = None
) -> tuple[MemoryStream, MemoryStream]:
    """Two connected streams. ``capacity`` bytes wait in each direction at most; reads give no more
    than ``chunk``."""
    there, back = _Way(capacity), _Way(capacity)
    return (
        MemoryStream(back, there, chunk, Extensions()),
        MemoryStream(there, back, chunk, Extensions()),
    )


class MemoryNetwork:
    """Listeners and a connector within the process, for testing whole proxies without sockets.

    ::

        async with MemoryNetwork() as network:
            network.listen(Address("echo.test", 7), echo)
            stream = await network.connector(ConnectTo(Address("echo.test", 7)))

    It owns the tasks of its services and ends them on the way out.
    """

    def __init__(self, *, capacity: int = 65536, chunk: int | None = None) -> None:
        self._capacity = capacity
        self._chunk = chunk
        self._services: dict[Address, Service[Stream, object]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_port = 40_000
        self.errors: list[BaseException] = []
        """What services raised."""

    def listen(self, address: Address, service: Service[Stream, object]) -> None:
        self._services[address] = service

    def dial(self, address: Address) -> MemoryStream:
        """A connection to a listener. :raises ConnectError: nobody listens there."""
        service = self._services.get(address)
        if service is None:
            raise ConnectError(f"{address}: refused", kind="refused", target=str(address))
        ours, theirs = memory_pipe(self._capacity, self._chunk)
        self._next_port = self._next_port % 65535 + 1
        theirs.ext.insert(Peer(Address("192.0.2.1", self._next_port)))
        theirs.ext.insert(Listener(address))
        ours.ext.insert(Peer(address))
        task = asyncio.get_running_loop().create_task(self._serve(service, theirs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return ours

    @property
    def connector(self) -> Service[ConnectTo, Stream]:
        return _Dialling(self)

    async def _serve(self, service: Service[Stream, object], stream: MemoryStream) -> None:
        try:
            await service(stream)
        except Exception as error:
            self.errors.append(error)
            # As a server does it: what was told on purpose ends in order.
            if not isinstance(error, StackError):
                stream.abort()
        finally:
            await stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


class _Dialling:
    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network

    def __call__(self, asked: ConnectTo, /) -> Awaitable[Stream]:
        return self._dial(asked)

    async def _dial(self, asked: ConnectTo) -> Stream:
        if asked.candidates is not None:
            for candidate in asked.candidates:
                if candidate in self._network._services:
                    return self._network.dial(candidate)
        return self._network.dial(asked.target)

    def __repr__(self) -> str:
        return "MemoryNetwork.connector"
