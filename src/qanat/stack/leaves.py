"""Services that end a stack: echo, discard, reject, forward."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from qanat.stack.address import Address
from qanat.stack.bridge import Bridge
from qanat.stack.connect.target import Connector, ConnectTo
from qanat.stack.errors import ConnectError
from qanat.stack.facts import Target
from qanat.stack.relaying import Relay, RelayReport
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream

__all__ = ["FROM_EXT", "Forward", "Reject", "discard", "echo"]


async def echo(stream: Stream, /) -> None:
    """Send back what comes, to the end."""
    while data := await stream.read():
        await stream.write(data)
    await stream.write_eof()


async def discard(stream: Stream, /) -> None:
    """Read to the end and say nothing."""
    while await stream.read():
        pass
    await stream.write_eof()


@dataclass(frozen=True, slots=True)
class Reject:
    """Say no: by a banner and an end, or by a reset."""

    banner: bytes = b""
    reset: bool = False

    async def __call__(self, stream: Stream, /) -> None:
        if self.banner:
            await stream.write(self.banner)
        if self.reset:
            stream.abort()


class _FromExt(Enum):
    FROM_EXT = "the target in the extensions"


FROM_EXT: Final = _FromExt.FROM_EXT
"""The target that a layer above has put into the extensions as :class:`~qanat.stack.Target`."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Connect to a target and relay. A target that is not reached ends the client with a reset."""

    to: Address | _FromExt
    connector: Connector
    then: Service[Bridge, RelayReport] = field(default_factory=Relay)

    async def __call__(self, stream: Stream, /) -> RelayReport:
        if isinstance(self.to, Address):
            target = self.to
            stream.ext.insert(Target(target))
        else:
            target = stream.ext.require(Target).address
        try:
            upstream = await self.connector(ConnectTo(target, stream.ext))
        except ConnectError:
            stream.abort()
            raise
        try:
            return await self.then(Bridge(stream, upstream))
        finally:
            # After a relay there is nothing left to end.
            upstream.abort()
