"""Facts about a connection that layers put into its extensions. Each class is a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qanat.stack.address import Address

__all__ = ["Accepted", "Client", "Listener", "Peer", "Rates", "Target", "Tls", "User"]


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of the socket."""

    address: Address


@dataclass(frozen=True, slots=True)
class Client:
    """Who speaks, as a trusted PROXY header tells it; without one, the peer."""

    address: Address


@dataclass(frozen=True, slots=True)
class Listener:
    """Our own end of the client's socket, and the name of the listener if it has one."""

    address: Address
    name: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the client wanted to go, as it asked."""

    address: Address


@dataclass(frozen=True, slots=True)
class User:
    """Who has proven to be whom."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tls:
    """What a handshake agreed on."""

    version: str
    cipher: str
    alpn: str | None = None
    server_name: str | None = None
    """SNI as the client sent it, or as we sent it."""
    certificate: str | None = None
    """Subject of the certificate that the other side showed."""
    ja4: str | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """Names of limits on bytes a second that the connection shares with others."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """When the connection was accepted, by the clock of the event loop."""

    at: float
