"""TLS towards targets, or other proxies, by the engine: a connector layer. What is relayed over
such a stream afterwards is native."""

from __future__ import annotations

from dataclasses import dataclass

from qanat.plan import TlsConnectPlan, TlsSendPlan
from qanat.stack.connect.target import Connector, ConnectTo
from qanat.stack.errors import ConnectError, PhaseTimeout, StackError
from qanat.stack.facts import Tls
from qanat.stack.stream.base import Stream
from qanat.stack.stream.engine import EngineStream, shake_as_client
from qanat.stack.stream.sockets import SocketStream

__all__ = ["EngineTlsConnect"]


@dataclass(frozen=True, slots=True)
class EngineTlsConnect:
    """Over what the connector below gives: a plain socket. The certificate is verified for the
    target's host, by the system's authorities unless ``ca`` names a PEM file. ConnectError is all
    that is raised."""

    server_name: str | None = None
    """Instead of the target's host."""
    ca: str | None = None
    alpn: tuple[str, ...] = ()
    insecure: bool = False
    """Accept any certificate."""
    handshake_timeout: float = 10.0

    def __call__(self, inner: Connector, /) -> Connector:
        return _Secured(self, inner)


@dataclass(frozen=True, slots=True)
class _Secured:
    settings: EngineTlsConnect
    inner: Connector

    async def __call__(self, asked: ConnectTo, /) -> Stream:
        settings, target = self.settings, asked.target
        plan = TlsConnectPlan(
            tls=TlsSendPlan(
                sni=settings.server_name or target.host.partition("%")[0],
                alpn=settings.alpn,
                insecure=settings.insecure,
                ca=settings.ca,
            ),
            handshake_timeout=settings.handshake_timeout,
        )
        stream = await self.inner(asked)
        try:
            if not isinstance(stream, SocketStream | EngineStream):
                raise ConnectError(
                    f"{target}: the engine can't speak TLS over {type(stream).__name__}",
                    kind="local",
                    domain="local",
                    target=str(target),
                )
            inside, told = await shake_as_client(stream, plan)
        except PhaseTimeout as error:
            stream.abort()
            raise ConnectError(f"{target}: {error}", kind="timeout", target=str(target)) from error
        except ConnectError:
            stream.abort()
            raise
        except StackError as error:
            stream.abort()
            raise ConnectError(
                f"{target}: TLS: {error}", kind="tls", domain="application", target=str(target)
            ) from error
        except BaseException:
            stream.abort()
            raise
        inside.ext.insert(
            Tls(
                version=told.get("version") or "",
                cipher=told.get("cipher") or "",
                alpn=told.get("alpn"),
                server_name=plan.tls.sni,
            )
        )
        return inside
