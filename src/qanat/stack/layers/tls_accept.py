"""TLS towards clients, over whatever they came by."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from qanat.stack.codec.client_hello import ClientHello
from qanat.stack.facts import Tls
from qanat.stack.layers.engine_tls import EngineTls
from qanat.stack.phases import within
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream
from qanat.stack.stream.engine import EngineStream
from qanat.stack.stream.sockets import SocketStream
from qanat.stack.stream.tls import TlsStream, shake_hands
from qanat.stack.tls import TlsServerConfig, asked_name

__all__ = ["TlsAccept", "subject"]

Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class TlsAccept:
    """``TlsAccept(TlsServerConfig.from_files("cert.pem", "key.pem"))``; what was agreed on is in
    the extensions as :class:`~qanat.stack.Tls`.

    The engine does it where it can, over plain sockets, and then relays natively; otherwise, or
    with ``engine="never"``, the standard library does.
    """

    config: TlsServerConfig
    handshake_timeout: float | None = 10.0
    engine: Literal["auto", "never"] = "auto"
    hello: bool = False
    """Whether the facts of streams have the ClientHello and its JA4. Where Python speaks TLS, put
    ``Peek`` above for that."""

    def __call__(self, inner: Service[Stream, Out], /) -> Service[Stream, Out]:
        config = self.config
        native: Service[Stream, Out] | None = None
        # It knows certificates by the names in them, and not by any others.
        if self.engine == "auto" and not config.names and self.handshake_timeout is not None:
            native = EngineTls(config, self.handshake_timeout, self.hello)(inner)
        return _Accepting(config.context(), self.handshake_timeout, native, inner)


@dataclass(frozen=True, slots=True)
class _Accepting(Generic[Out]):
    context: ssl.SSLContext
    handshake_timeout: float | None
    native: Service[Stream, Out] | None
    inner: Service[Stream, Out]

    def __call__(self, stream: Stream, /) -> Awaitable[Out]:
        if self.native is not None and isinstance(stream, SocketStream | EngineStream):
            return self.native(stream)
        return self._serve(stream)

    async def _serve(self, stream: Stream) -> Out:
        async with within(self.handshake_timeout, "tls-handshake"):
            inside = await shake_hands(stream, self.context, server_side=True)
        name = asked_name(inside.session)
        inside.ext.insert(agreed(inside, name))
        try:
            result = await self.inner(inside)
            await inside.aclose()
            return result
        finally:
            inside.abort()


def agreed(stream: TlsStream, server_name: str | None) -> Tls:
    """The fact about a handshake."""
    session = stream.session
    cipher = session.cipher()
    hello = stream.ext.get(ClientHello)
    return Tls(
        version=session.version() or "",
        cipher=cipher[0] if cipher else "",
        alpn=session.selected_alpn_protocol(),
        server_name=server_name,
        certificate=subject(session),
        ja4=hello.ja4 if hello is not None else None,
    )


_SHORT = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
}


def subject(session: ssl.SSLObject) -> str | None:
    """Whose certificate the peer showed and we have verified, as ``CN=name,O=company``."""
    shown: dict[str, Any] = session.getpeercert() or {}
    names = [
        f"{_SHORT.get(name, name)}={value}"
        for part in shown.get("subject", ())
        for name, value in part
    ]
    return ",".join(names) or None
