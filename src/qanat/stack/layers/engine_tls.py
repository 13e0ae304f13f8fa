"""TLS towards clients by the engine: handshake and records are native, and so is what is relayed
afterwards."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Generic, TypeVar

from qanat.plan import TlsAcceptPlan
from qanat.stack.errors import LocalProtocolError
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream
from qanat.stack.stream.engine import EngineStream, note_handshake, shake_as_server
from qanat.stack.stream.sockets import SocketStream
from qanat.stack.tls import TlsServerConfig

__all__ = ["EngineTls"]

Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class EngineTls:
    """Over plain sockets. Files that change are read again by themselves."""

    config: TlsServerConfig
    """Of several certificates, the engine takes one that has the name that was asked for."""
    handshake_timeout: float = 10.0
    hello: bool = False
    """Whether the stream's facts have the ClientHello, and with it the JA4 of the client."""

    def __call__(self, inner: Service[Stream, Out], /) -> Service[Stream, Out]:
        return _Shaking(self.config.plan(self.handshake_timeout, hello=self.hello), inner)


@dataclass(frozen=True, slots=True)
class _Shaking(Generic[Out]):
    plan: TlsAcceptPlan
    inner: Service[Stream, Out]

    def __call__(self, stream: Stream, /) -> Awaitable[Out]:
        if not isinstance(stream, SocketStream | EngineStream):
            raise LocalProtocolError(f"the engine can't speak TLS over {stream!r}")
        return self._serve(stream)

    async def _serve(self, stream: SocketStream | EngineStream) -> Out:
        inside, told = await shake_as_server(stream, self.plan)
        note_handshake(inside.ext, told)
        try:
            result = await self.inner(inside)
            await inside.aclose()
            return result
        finally:
            inside.abort()
