"""What the engine can be asked to do: plain data, the twin of ``engine/src/plan.rs``.

A plan says everything about one endpoint before a flow exists, so that the engine never has to ask
again. Plans are frozen, comparable (a reload is the difference of two sets of plans) and travel to
the engine as JSON with the same names on both sides. This module does no I/O, imports nothing of
the package, and a test compares every name and default with the Rust side.

Times are seconds, sizes are bytes, and 0 means "no limit" unless a field says otherwise.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = [
    "DnsMode",
    "DnsProtocol",
    "EndpointPlan",
    "LimitsPlan",
    "RemotePlan",
    "ResolverPlan",
    "TcpPlan",
    "UdpPlan",
    "to_json",
]

DnsMode = Literal["ipv4_only", "ipv6_only", "ipv4_and_ipv6", "ipv4_then_ipv6", "ipv6_then_ipv4"]
DnsProtocol = Literal["udp", "tcp", "tcp_and_udp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverPlan:
    """How names become addresses. Endpoints with equal plans share one resolver and its cache."""

    mode: DnsMode = "ipv4_and_ipv6"
    """Which record types to ask for; IPv4 answers come first with ``ipv4_and_ipv6``."""
    protocol: DnsProtocol = "tcp_and_udp"
    nameservers: tuple[str, ...] = ()
    """``ip:port`` literals; empty means the system's configuration."""
    min_ttl: int = 0
    max_ttl: int = 86_400
    cache_size: int = 8_192
    """Names kept; the least recently used go first."""
    stale: int = 3_600
    """How long after its end a cached answer still serves while no name server answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemotePlan:
    """One target as configured: a literal address or a name that is resolved for each flow."""

    host: str
    """An address without brackets, or a host name."""
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsPlan:
    """How much is let in. Used for one endpoint, and once more for all endpoints together."""

    connections: int = 0
    """TCP flows open at once."""
    connection_rate: int = 0
    """New TCP flows a second; a burst of one second's worth passes."""
    connections_per_client: int = 0
    """TCP flows open at once from one client address (one /64 for IPv6)."""
    associations: int = 0
    """UDP associations alive at once; the least recently used one gives way to a new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpPlan:
    connect_timeout: float = 5.0
    """From accept to connected, name resolution included; 0 leaves it to the kernel."""
    keepalive: int = 15
    """Idle time and interval of keepalive probes on both legs; 0 switches them off."""
    keepalive_probes: int = 3
    accept_mptcp: bool = False
    send_mptcp: bool = False
    idle_timeout: float = 0.0
    """Ends a flow on which nothing moved in either direction for so long."""
    linger: float = 30.0
    """How long a half-closed flow may go without progress; 0 means for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpPlan:
    timeout: float = 30.0
    """An association ends when nothing passed in either direction for so long; 0 means never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPlan:
    """One listening address and where its flows go."""

    id: str
    """Unique among the endpoints of one relay, and the same after a reload: the label in logs,
    metrics and differences."""
    listen: str
    """``ip:port`` or ``[ip6%scope]:port``; port 0 lets the kernel choose."""
    remotes: tuple[RemotePlan, ...]
    """At least one. Flows go to the first."""
    tcp: TcpPlan | None = field(default_factory=TcpPlan)
    udp: UdpPlan | None = None
    ipv6_only: bool = False
    listen_interface: str | None = None
    """Device that the listening sockets are bound to."""
    through: str | None = None
    """Source address of outgoing sockets: ``ip:port``; port 0 lets the kernel choose."""
    through_interface: str | None = None
    """Device whose current address (of the target's family) is the source address."""
    interface: str | None = None
    """Device that outgoing sockets are bound to."""
    limits: LimitsPlan = field(default_factory=LimitsPlan)
    resolver: ResolverPlan = field(default_factory=ResolverPlan)


def to_json(plan: EndpointPlan | LimitsPlan | ResolverPlan) -> str:
    """The form in which a plan crosses the border, is stored and is shown."""
    return json.dumps(_plain(plan), separators=(",", ":"))


def _plain(plan: EndpointPlan | LimitsPlan | ResolverPlan) -> dict[str, Any]:
    return asdict(plan)
