"""TLS towards clients by the engine: handshake and records are native, and so is what is relayed
afterwards."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Generic, TypeVar

from qanat.plan import CertificatePlan, TlsAcceptPlan, TlsListenPlan
from qanat.stack.errors import LocalProtocolError
from qanat.stack.facts import Tls
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream
from qanat.stack.stream.engine import EngineStream, shake_as_server
from qanat.stack.stream.sockets import SocketStream

__all__ = ["EngineTls"]

Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class EngineTls:
    """Over plain sockets. Files that change are read again by themselves."""

    certificate: str
    """The path of a PEM file with the chain."""
    key: str
    alpn: tuple[str, ...] = ()
    handshake_timeout: float = 10.0

    def __call__(self, inner: Service[Stream, Out], /) -> Service[Stream, Out]:
        plan = TlsAcceptPlan(
            tls=TlsListenPlan(
                certificates=(CertificatePlan(cert=self.certificate, key=self.key),),
                alpn=self.alpn,
            ),
            handshake_timeout=self.handshake_timeout,
        )
        return _Shaking(plan, inner)


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
        inside.ext.insert(
            Tls(
                version=told.get("version") or "",
                cipher=told.get("cipher") or "",
                alpn=told.get("alpn"),
                server_name=told.get("sni"),
                certificate=told.get("client_certificate"),
            )
        )
        try:
            result = await self.inner(inside)
            await inside.aclose()
            return result
        finally:
            inside.abort()
