"""One port for all: what the client's first byte says.

SOCKS begins with its version, TLS with its kind of record, HTTP with the letter of a method. Who
begins otherwise is told so at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qanat.stack.errors import RemoteProtocolError
from qanat.stack.phases import within
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream

__all__ = ["MixedProxy"]


@dataclass(frozen=True, slots=True)
class MixedProxy:
    socks: Service[Stream, Any]
    http: Service[Stream, Any]
    tls: Service[Stream, Any] | None = None
    """For clients that speak TLS to the proxy itself."""
    timeout: float | None = 10.0
    """Seconds for the first byte."""

    async def __call__(self, stream: Stream, /) -> Any:
        async with within(self.timeout, "handshake"):
            seen = await stream.peek()
        if not seen:
            return None
        first = seen[0]
        if first in (4, 5):
            return await self.socks(stream)
        if first == 0x16 and self.tls is not None:
            return await self.tls(stream)
        if seen[:1].isalpha():
            return await self.http(stream)
        raise RemoteProtocolError("the client speaks none of SOCKS, HTTP and TLS")
