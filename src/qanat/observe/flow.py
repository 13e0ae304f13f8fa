"""One flow as the engine reports it, alive or ended. Does no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

__all__ = ["Flow", "FlowState", "Protocol"]

Protocol = Literal["tcp", "udp"]
FlowState = Literal[
    "resolving", "connecting", "handshake", "deciding", "open", "half_closed", "closing", "ended"
]


_HANDSHAKE: Final = (
    "tls",
    "cipher",
    "sni",
    "alpn",
    "client_certificate",
    "resumed",
    "target_tls",
    "target_cipher",
    "target_alpn",
    "target_resumed",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A TCP connection or a UDP association on its way through the relay.

    A snapshot: it does not change while the flow goes on. Addresses are ``ip:port`` with IPv6 in
    brackets.
    """

    id: int
    """Unique in this process; what ``Relay.kill`` takes."""
    endpoint: str
    """Id of the endpoint by which it came in."""
    protocol: Protocol
    client: str
    listener: str | None
    """The address on which the endpoint listens."""
    target: str
    """The remote as configured, ``host:port``."""
    peer: str | None
    """The resolved address of it that was chosen, once there is one."""
    source: str | None
    """Our own address towards the peer, while it is known."""
    state: FlowState
    started: float
    """Unix time in seconds."""
    duration: float
    """Seconds since it started, or until it ended."""
    connect: float | None
    """Seconds from accept to connected, name resolution included; None if it never was."""
    idle: float
    """Seconds since anything moved."""
    bytes_up: int
    """From the client to the target."""
    bytes_down: int
    """From the target to the client."""
    packets_up: int
    packets_down: int
    """Datagrams; 0 for TCP."""
    worker: int
    """Number of the worker thread that carries it."""
    reason: str | None = None
    """Why it ended, one of a closed list of words; None while it lives."""
    detail: str | None = None
    """More about the end, such as ``Connection refused (os error 111)``."""
    user: str | None = None
    """Who it belongs to, for flows of programs that know their users."""
    via: str | None = None
    """The other end of the client's socket, when a PROXY header named another client."""
    tls: str | None = None
    """TLS version on the client's side, such as ``TLSv1.3``; None without TLS, as all below."""
    cipher: str | None = None
    sni: str | None = None
    """The name that the client asked for."""
    alpn: str | None = None
    """The protocol that was agreed on with the client."""
    client_certificate: str | None = None
    """Subject of the certificate that the client showed, such as ``CN=alice,O=Example``."""
    resumed: bool | None = None
    """Whether the client came back to an earlier session."""
    target_tls: str | None = None
    """TLS version on the target's side."""
    target_cipher: str | None = None
    target_alpn: str | None = None
    target_resumed: bool | None = None

    @property
    def ended(self) -> bool:
        return self.state == "ended"

    @property
    def started_at(self) -> datetime:
        """``started`` as a date with time zone UTC."""
        return datetime.fromtimestamp(self.started, UTC)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Flow:
        """From the engine's JSON. What is missing gets a neutral value, what is new is ignored."""
        get = record.get
        reason = get("reason")
        return cls(
            id=get("id", 0),
            endpoint=get("endpoint", ""),
            protocol=get("protocol", "tcp"),
            client=get("client", ""),
            listener=get("listener"),
            target=get("target") or "",
            peer=get("peer"),
            source=get("source"),
            state=get("state") or ("open" if reason is None else "ended"),
            started=get("started", 0.0),
            duration=get("duration", 0.0),
            connect=get("connect"),
            idle=get("idle") or 0.0,
            bytes_up=get("bytes_up", 0),
            bytes_down=get("bytes_down", 0),
            packets_up=get("packets_up", 0),
            packets_down=get("packets_down", 0),
            worker=get("worker", 0),
            reason=reason,
            detail=get("detail"),
            user=get("user"),
            via=get("via"),
            **{name: get(name) for name in _HANDSHAKE},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values by the names above, ready for JSON."""
        return asdict(self)
