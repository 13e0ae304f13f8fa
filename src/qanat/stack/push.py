"""Moving bytes between two sockets by callbacks of the event loop: no task, no future, no copy.

For flows that stay in Python. One buffer serves all flows of a loop: what a socket does not take at
once is copied out of it, and its source rests until that has gone.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary

from qanat.stack.errors import StackError
from qanat.stack.stream.base import Detached
from qanat.stack.stream.sockets import SocketStream, broken, detach_both

__all__ = ["SideBroken", "push"]

_BUFFER: Final = 256 * 1024

_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, bytearray] = WeakKeyDictionary()


class SideBroken(Exception):
    """Which side of a flow failed, and how."""

    def __init__(self, client: bool, error: BaseException) -> None:
        super().__init__(str(error))
        self.client = client
        self.error = error


async def push(
    client: SocketStream,
    upstream: SocketStream,
    passed: Callable[[bool, int], None],
    side_ended: Callable[[bool], None],
) -> None:
    """Until both directions have ended; raises SideBroken. The streams keep their sockets."""
    loop = asyncio.get_running_loop()
    taken_client, taken_upstream = detach_both(client, upstream)
    done: asyncio.Future[None] = loop.create_future()
    up = _Lane(loop, taken_client, taken_upstream.socket, True, done, passed, side_ended)
    down = _Lane(loop, taken_upstream, taken_client.socket, False, done, passed, side_ended)
    up.other, down.other = down, up
    try:
        up.begin(client.ended, upstream.finished)
        down.begin(upstream.ended, client.finished)
        await done
    finally:
        up.rest()
        down.rest()
        client.reattach(Detached(taken_client.socket, b""))
        upstream.reattach(Detached(taken_upstream.socket, b""))
        client.now(ended=up.ended, finished=down.finished)
        upstream.now(ended=down.ended, finished=up.finished)


class _Lane:
    """One direction."""

    __slots__ = (
        "_buffer",
        "_done",
        "_left",
        "_loop",
        "_passed",
        "_reading",
        "_side_ended",
        "_sink",
        "_source",
        "_unwanted",
        "_up",
        "_writing",
        "ended",
        "finished",
        "other",
        "suspect",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: Detached,
        sink: socket.socket,
        up: bool,
        done: asyncio.Future[None],
        passed: Callable[[bool, int], None],
        side_ended: Callable[[bool], None],
    ) -> None:
        self._loop = loop
        self._source = source.socket
        self._sink = sink
        self._up = up
        self._done = done
        self._passed = passed
        self._side_ended = side_ended
        self._left = memoryview(source.unread)
        self._reading = False
        self._writing = False
        self._unwanted = False
        self.ended = False
        self.finished = False
        self.other: _Lane | None = None
        self.suspect: OSError | None = None
        """Why our source took nothing any more: if it ends without a further word, it broke."""
        buffer = _buffers.get(loop)
        if buffer is None:
            buffer = _buffers[loop] = bytearray(_BUFFER)
        self._buffer = memoryview(buffer)

    def begin(self, ended: bool, finished: bool) -> None:
        self.ended, self.finished = ended, finished
        if self._left:
            self._flush()
        elif ended:
            self._finish()
        else:
            self._watch()

    def rest(self) -> None:
        """Let go of the loop."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._source.fileno())
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sink.fileno())

    def _watch(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.add_reader(self._source.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            count = self._source.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(self._up, broken(error))
            return
        if not count:
            if self.suspect is not None:
                self._fail(self._up, broken(self.suspect))
                return
            self.ended = True
            self._unwatch()
            self._finish()
            return
        self.suspect = None
        if self._unwanted:
            return
        try:
            sent = self._sink.send(self._buffer[:count])
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._refused(error)
            return
        if sent:
            self._passed(self._up, sent)
        if sent < count:
            self._left = memoryview(bytes(self._buffer[sent:count]))
            self._unwatch()
            self._writing = True
            self._loop.add_writer(self._sink.fileno(), self._flush)

    def _unwatch(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._source.fileno())

    def _flush(self) -> None:
        try:
            sent = self._sink.send(self._left)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._refused(error)
            sent = len(self._left)
        if sent:
            if not self._unwanted:
                self._passed(self._up, sent)
            self._left = self._left[sent:]
        if self._left:
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._sink.fileno(), self._flush)
            return
        self._left = memoryview(b"")
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sink.fileno())
        if self.ended:
            self._finish()
        else:
            self._watch()

    def _finish(self) -> None:
        if not self.finished:
            self.finished = True
            try:
                self._sink.shutdown(socket.SHUT_WR)
            except OSError as error:
                self._refused(error)
        self._side_ended(self._up)
        other = self.other
        if other is not None and other.over and not self._done.done():
            self._done.set_result(None)

    def _refused(self, error: OSError) -> None:
        """The sink takes no more, but its last words may still be on their way, which a reset of
        our source would take away. So what comes from there goes nowhere from now on, and the
        other lane finds out whether there were any."""
        self._unwanted = True
        if self.other is not None and not self.other.ended:
            self.other.suspect = error

    @property
    def over(self) -> bool:
        return self.ended and self.finished and not self._left

    def _fail(self, client: bool, error: StackError) -> None:
        self.rest()
        if not self._done.done():
            self._done.set_exception(SideBroken(client, error))
