"""TLS towards targets, over whatever the connector below gives."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Literal

from qanat.stack.connect.target import Connector, ConnectTo
from qanat.stack.errors import ConnectError, StackError
from qanat.stack.layers.engine_tls_connect import EngineTlsConnect
from qanat.stack.layers.tls_accept import agreed
from qanat.stack.stream.base import Stream
from qanat.stack.stream.engine import EngineStream
from qanat.stack.stream.sockets import SocketStream
from qanat.stack.stream.tls import shake_hands
from qanat.stack.tls import TlsClientConfig

__all__ = ["TlsConnect"]


@dataclass(frozen=True, slots=True)
class TlsConnect:
    """A connector layer. The target's host is asked for and verified, by the system's authorities
    unless the config says otherwise; a host that is an address is verified and not sent.
    ConnectError is all that is raised.

    The engine does it where it can, over plain sockets, and then relays natively; otherwise, or
    with ``engine="never"``, the standard library does, also within TLS.
    """

    config: TlsClientConfig = field(default_factory=TlsClientConfig)
    server_name: str | None = None
    """Instead of the target's host."""
    handshake_timeout: float | None = 10.0
    engine: Literal["auto", "never"] = "auto"

    def __call__(self, inner: Connector, /) -> Connector:
        return _Connecting(self, self.config.context(), inner)


@dataclass(frozen=True, slots=True)
class _Given:
    """A connector that gives what is there already."""

    stream: Stream

    async def __call__(self, _: ConnectTo, /) -> Stream:
        return self.stream


@dataclass(frozen=True, slots=True)
class _Connecting:
    settings: TlsConnect
    context: ssl.SSLContext
    inner: Connector

    async def __call__(self, asked: ConnectTo, /) -> Stream:
        settings, config = self.settings, self.settings.config
        stream = await self.inner(asked)
        if (
            settings.engine == "auto"
            and config.certificate is None
            and settings.handshake_timeout is not None
            and isinstance(stream, SocketStream | EngineStream)
        ):
            layer = EngineTlsConnect(
                settings.server_name,
                config.ca,
                config.alpn,
                config.insecure,
                settings.handshake_timeout,
            )
            return await layer(_Given(stream))(asked)
        return await self._shake(asked, stream)

    async def _shake(self, asked: ConnectTo, stream: Stream) -> Stream:
        target, seconds = str(asked.target), self.settings.handshake_timeout
        name = self.settings.server_name or asked.target.host.partition("%")[0].rstrip(".")
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                inside = await shake_hands(
                    stream, self.context, server_side=False, server_name=name
                )
        except StackError as error:
            stream.abort()
            raise ConnectError(
                f"{target}: TLS: {error}", kind="tls", domain="application", target=target
            ) from error
        except TimeoutError as error:
            stream.abort()
            if not limit.expired():
                raise
            raise ConnectError(
                f"{target}: the TLS handshake timed out after {seconds:g} s",
                kind="timeout",
                target=target,
            ) from error
        except BaseException:
            stream.abort()
            raise
        inside.ext.insert(agreed(inside, name))
        return inside
