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
from typing import Literal

__all__ = [
    "AcceptProxy",
    "AssociatePlan",
    "Balance",
    "CertificatePlan",
    "CheckKind",
    "CheckPlan",
    "DeskListenPlan",
    "DialPlan",
    "DnsMode",
    "DnsProtocol",
    "EndpointPlan",
    "ExchangePlan",
    "HealthPlan",
    "HookPlan",
    "HttpCheckPlan",
    "JoinPlan",
    "LimitsPlan",
    "ListenTransportPlan",
    "Mask",
    "OnFailure",
    "ProxyProtocolPlan",
    "ProxyVersion",
    "RatesPlan",
    "RemotePlan",
    "RemoteTransportPlan",
    "ResolverPlan",
    "RoutingPlan",
    "RuleKind",
    "RulePlan",
    "TcpPlan",
    "TlsAcceptPlan",
    "TlsConnectPlan",
    "TlsListenPlan",
    "TlsSendPlan",
    "UdpCheckPlan",
    "UdpPlan",
    "WebSocketPlan",
    "to_json",
]

AcceptProxy = Literal["off", "required", "optional"]
Balance = Literal["off", "roundrobin", "iphash", "leastconn", "random2", "failover"]
CheckKind = Literal["tcp", "tls", "http", "udp"]
DnsMode = Literal["ipv4_only", "ipv6_only", "ipv4_and_ipv6", "ipv4_then_ipv6", "ipv6_then_ipv4"]
DnsProtocol = Literal["udp", "tcp", "tcp_and_udp"]
Mask = Literal["zero", "random"]
OnFailure = Literal["refuse", "allow"]
ProxyVersion = Literal[0, 1, 2]
RuleKind = Literal["sni", "host", "bytes"]


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
class CertificatePlan:
    """A certificate chain with its key, as files in PEM or DER."""

    cert: str
    key: str
    ocsp: str | None = None
    """A DER response to staple."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsListenPlan:
    """TLS towards clients."""

    certificates: tuple[CertificatePlan, ...] = ()
    """Chosen by the name that the client asks for; the first one serves all other names."""
    self_signed: str | None = None
    """Name in a certificate made at start, when there are no files."""
    alpn: tuple[str, ...] = ()
    """Protocols we select from, most wanted first; empty selects none."""
    client_ca: str | None = None
    """PEM file of authorities; clients must show a certificate of one of them."""
    client_optional: bool = False
    """With ``client_ca``: clients may come without a certificate."""
    key_log: bool = False
    """Write secrets to the file that SSLKEYLOGFILE names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSendPlan:
    """TLS towards targets."""

    sni: str
    """The name that is asked for and verified; an address is verified and not sent."""
    alpn: tuple[str, ...] = ()
    insecure: bool = False
    """Accept any certificate."""
    ca: str | None = None
    """PEM file of authorities in place of the system's."""
    cert: str | None = None
    """Our own certificate chain, for targets that ask for one; ``key`` goes with it."""
    key: str | None = None
    key_log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketPlan:
    host: str
    path: str
    mask: Mask = "zero"
    """Sending side: the key of our frames. Zero costs nothing and is what realm sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenTransportPlan:
    """What wraps the client's leg: TLS outside, then WebSocket, then datagram framing."""

    tls: TlsListenPlan | None = None
    ws: WebSocketPlan | None = None
    uot: bool = False
    """The stream carries the datagrams of one UDP association, each behind its length."""
    handshake_timeout: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteTransportPlan:
    """What wraps the target's leg."""

    tls: TlsSendPlan | None = None
    ws: WebSocketPlan | None = None
    uot: bool = False
    handshake_timeout: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyProtocolPlan:
    """The PROXY protocol, before any transport on either leg."""

    accept: AcceptProxy = "off"
    accept_timeout: float = 5.0
    """From accept to the whole header; 0 waits for ever."""
    trusted: tuple[str, ...] = ()
    """Networks whose headers count; empty trusts everybody."""
    send: ProxyVersion = 0
    """Version of the header sent to TCP targets; 0 sends none."""
    send_udp: bool = False
    """A version 2 header before the first datagram of each association."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCheckPlan:
    path: str = "/"
    host: str | None = None
    status: tuple[int, ...] = ()
    """Accepted answers; empty accepts 200 to 399."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpCheckPlan:
    send: str
    """Hexadecimal bytes to send."""
    expect: str = ""
    """Hexadecimal bytes that the answer must begin with; empty accepts any answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPlan:
    """Active health checks of every remote."""

    kind: CheckKind = "tcp"
    interval: float = 5.0
    timeout: float = 2.0
    rise: int = 2
    """Good checks in a row until a remote is up again."""
    fall: int = 3
    """Bad checks in a row until it is down."""
    http: HttpCheckPlan | None = None
    udp: UdpCheckPlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPlan:
    """What failures of a remote mean for new flows."""

    failover: bool = False
    """Try the next remote inside the same client connection, and leave failing ones alone."""
    max_fails: int = 2
    """Failures in a row until a remote is down; 0 never takes it down."""
    fail_timeout: float = 120.0
    """How long it is left alone before it is tried again, gradually."""
    check: CheckPlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RulePlan:
    """Flows that show something in their first bytes go to remotes of their own."""

    kind: RuleKind
    """A TLS ClientHello's name, a plain HTTP/1 request's Host, or the first bytes."""
    pattern: str
    """``name`` or ``*.name`` in lower case, or hexadecimal bytes."""
    remotes: tuple[RemotePlan, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingPlan:
    rules: tuple[RulePlan, ...]
    """The first that matches counts; without a match the endpoint's own remotes serve."""
    timeout: float = 3.0
    """How long to wait for the client to say something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatesPlan:
    """Bytes a second; 0 is no limit. Up is from the client to the target."""

    flow_up: int = 0
    flow_down: int = 0
    client_up: int = 0
    """All flows of one client address together (one /64 for IPv6)."""
    client_down: int = 0
    endpoint_up: int = 0
    endpoint_down: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HookPlan:
    """A decision in Python for every flow, asked for through an event."""

    call: str = ""
    """``module:function`` or ``path.py:function``, which the engine carries and does not read."""
    first_bytes: int = 0
    """How many of the client's first bytes to show; 0 asks at once."""
    timeout: float = 5.0
    """For the first bytes and the decision together."""
    on_failure: OnFailure = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPlan:
    """One listening address and where its flows go."""

    id: str
    """Unique among the endpoints of one relay, and the same after a reload: the label in logs,
    metrics and differences."""
    listen: str
    """``ip:port`` or ``[ip6%scope]:port``; port 0 lets the kernel choose."""
    remotes: tuple[RemotePlan, ...]
    """At least one. Without ``balance`` flows go to the first."""
    weights: tuple[int, ...] = ()
    """One for each remote; empty makes all equal."""
    balance: Balance = "off"
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
    listen_transport: ListenTransportPlan | None = None
    remote_transport: RemoteTransportPlan | None = None
    proxy: ProxyProtocolPlan = field(default_factory=ProxyProtocolPlan)
    health: HealthPlan = field(default_factory=HealthPlan)
    routing: RoutingPlan | None = None
    allow: tuple[str, ...] = ()
    """Networks that may come in; empty allows everybody who is not denied."""
    deny: tuple[str, ...] = ()
    rates: RatesPlan = field(default_factory=RatesPlan)
    quota: int = 0
    """Bytes, both directions together, after which new flows are refused and live ones end."""
    hook: HookPlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinPlan:
    """One flow that Python begins: what is known of it, and by what limits it goes."""

    endpoint: int
    """Handle of ``Desk.endpoint``, in whose row it is counted."""
    target: str
    """``host:port`` as it was asked for."""
    client: str | None = None
    """``ip:port``; None for a client without an address (a Unix socket)."""
    peer: str | None = None
    """``ip:port`` of the target's side."""
    listener: str | None = None
    """``ip:port`` on which the client came in, when it is not the endpoint's."""
    user: str | None = None
    idle_timeout: float | None = None
    """None is no limit, as is 0."""
    linger: float | None = None
    """How long one side may go on after the other has ended; None is no limit."""
    rates: tuple[str, ...] = ()
    """Names of limits that this flow shares with others (``Desk.set_rates``)."""
    age: float = 0.0
    """Seconds since the client was accepted."""
    connect: float | None = None
    """Seconds from then until the target was connected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangePlan:
    """Messages of HTTP between a client and a server that Python has brought together."""

    flow: JoinPlan
    """Its ``idle_timeout`` and ``linger`` mean nothing here."""
    authority: str
    """``host:port`` as the client writes it: requests for another one come back."""
    via: str
    """Our name in ``Via``."""
    credentials: str | None = None
    """What ``Proxy-Authorization`` must say, or None when it must not be there."""
    checked: bool = False
    """Whether that matters."""
    head_timeout: float | None = None
    """Seconds for a head that has begun, and a small body; None is no limit, as is 0."""
    next_timeout: float | None = None
    """Seconds for the next request."""
    answer_timeout: float | None = None
    """Seconds for a server to begin its answer, and for each piece of it."""
    told: bool = False
    """Whether each request is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsAcceptPlan:
    """A TLS handshake with a client on a leg that Python holds."""

    tls: TlsListenPlan
    """Certificates and keys may be PEM text instead of the name of a file."""
    handshake_timeout: float = 10.0
    hello: bool = False
    """Whether the report has the ClientHello as it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConnectPlan:
    """A TLS handshake with a target on a leg that Python holds."""

    tls: TlsSendPlan
    handshake_timeout: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DialPlan:
    """A connection that the engine makes for Python: all addresses, raced."""

    addresses: tuple[str, ...] = ()
    """``ip:port`` each, best first."""
    name: RemotePlan | None = None
    """Instead of addresses: a name that the engine resolves."""
    timeout: float = 5.0
    """For everything together."""
    through: str | None = None
    """``ip:port`` to connect from; port 0 lets the kernel choose."""
    through_interface: str | None = None
    """A device whose address to connect from."""
    interface: str | None = None
    """A device to send through."""
    send_mptcp: bool = False
    resolver: ResolverPlan | None = None
    """For ``name``; None is the system's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskListenPlan:
    """A listening socket whose connections become legs that Python holds."""

    listen: str
    """``ip:port``; port 0 lets the kernel choose."""
    ipv6_only: bool = False
    listen_interface: str | None = None
    accept_mptcp: bool = False
    tls: TlsAcceptPlan | None = None
    """The handshake that comes before a connection is reported."""
    waiting: int = 1_024
    """Connections that may wait to be fetched, handshakes included; others wait in the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociatePlan:
    """A UDP association of a SOCKS5 client."""

    endpoint: int
    """Handle of ``Desk.endpoint``, in whose row it is counted."""
    client: str
    """``ip:port`` of the connection that asked for it. Datagrams are taken from this address."""
    bind: str
    """``ip:port`` that the client is to send to; port 0 lets the kernel choose."""
    port: int | None = None
    """The client sends from this port. None, and 0: from that of its first datagram."""
    target: str = "*"
    """What records show: an association has many targets."""
    listener: str | None = None
    """``ip:port`` that records show, when it is not where the client sends to."""
    user: str | None = None
    idle_timeout: float | None = None
    """Seconds without a datagram in either direction. None is no limit, as is 0."""
    rates: tuple[str, ...] = ()
    """Names of limits that it shares with other flows (``Desk.set_rates``)."""
    through: str | None = None
    """``ip:port`` to send from; port 0 lets the kernel choose."""
    through_interface: str | None = None
    """A device whose address to send from."""
    interface: str | None = None
    """A device to send through."""
    targets: int = 256
    """Remembered; the one used longest ago goes."""
    questions: int = 32
    """Of the targets, those that may wait for a decision."""
    held: int = 16
    """Datagrams that may wait for decisions."""
    held_bytes: int = 65_536


def to_json(
    plan: EndpointPlan
    | LimitsPlan
    | ResolverPlan
    | ExchangePlan
    | JoinPlan
    | TlsAcceptPlan
    | TlsConnectPlan
    | DialPlan
    | DeskListenPlan
    | AssociatePlan,
) -> str:
    """The form in which a plan crosses the border, is stored and is shown."""
    return json.dumps(asdict(plan), separators=(",", ":"))
