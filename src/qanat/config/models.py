"""The models of a configuration: every key, its type, its default and its range.

The text under each field is its documentation: ``docs/configuration.md`` and the JSON Schema are
made of it. The models know no file and no line; what they refuse is told as
:class:`qanat.errors.ConfigError`, also when they are built in Python. They do no I/O.

Single values are in :mod:`qanat.config.values`, tables of endpoints in modules of their own.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, StrictInt, ValidationInfo, model_validator

from qanat.config import address
from qanat.config.balancing import BalanceError, Balancing, parse_balance
from qanat.config.health_check import Check
from qanat.config.refusal import refuse
from qanat.config.routes import Route, as_routes
from qanat.config.table import Model
from qanat.config.transports import (
    Certificate,
    ListenTls,
    ListenTransport,
    ListenWrapping,
    RemoteTls,
    RemoteTransport,
    RemoteWrapping,
    WebSocket,
    listen_transport,
    remote_transport,
)
from qanat.config.values import (
    HIGHEST_KEEPALIVE,
    HIGHEST_PIPE_PAGE,
    HIGHEST_PROBES,
    AcceptProxy,
    AccessList,
    BalanceText,
    Count,
    Device,
    Failover,
    Flag,
    HealthCheck,
    Hook,
    Label,
    Listen,
    NameServer,
    OnePort,
    Quota,
    Rate,
    Remote,
    Routes,
    Seconds,
    SendProxy,
    SendProxyUdp,
    Text,
    Through,
    TrustedList,
    WholeSeconds,
)

__all__ = [
    "ALIASES",
    "DEPRECATED",
    "MODELS",
    "PART",
    "TABLES",
    "Certificate",
    "Check",
    "Config",
    "Dns",
    "DnsMode",
    "DnsProtocol",
    "Endpoint",
    "Limits",
    "ListenTls",
    "ListenTransport",
    "Log",
    "LogFormat",
    "LogLevel",
    "Model",
    "Network",
    "OnFailure",
    "RemoteTls",
    "RemoteTransport",
    "Route",
    "WebSocket",
]

LogLevel = Literal["off", "error", "warn", "info", "debug", "trace"]
LogFormat = Literal["text", "json"]
DnsMode = Literal["ipv4_only", "ipv6_only", "ipv4_and_ipv6", "ipv4_then_ipv6", "ipv6_then_ipv4"]
DnsProtocol = Literal["tcp", "udp", "tcp_and_udp"]
OnFailure = Literal["refuse", "allow"]

PART: Final = {"part": True}
"""Validation context for one file of several: what only the whole can tell is not asked."""

ALIASES: Final = {
    "endpoint": {"local": "listen"},
    "network": {"accept_timeout": "accept_proxy_timeout"},
}
"""Other names under which a file may give a key, by kind of table."""

DEPRECATED: Final = frozenset({"zero_copy", "fast_open"})
"""Keys of old files that are accepted anywhere and do nothing."""


class Log(Model):
    """What is written down while the relay runs, and where to."""

    level: LogLevel = "warn"
    """How much is logged. `info` has a line for each flow that ended; `off` says nothing."""

    output: Text = "stdout"
    """`stdout`, `stderr`, or the path of a file that is appended to and created when missing. The
    file is opened again on SIGUSR1, for rotation. While the file says neither `level` nor `output`,
    warnings go to stderr."""

    format: LogFormat = "text"
    """`text` for people, `json` for one JSON object a line."""


class Dns(Model):
    """How host names become addresses."""

    mode: DnsMode = "ipv4_and_ipv6"
    """Which addresses are asked for, and which come first. With `ipv4_and_ipv6` both are asked for
    at once and IPv4 comes first; with the `then` modes the second kind is asked for only when the
    first gave nothing."""

    protocol: DnsProtocol = "tcp_and_udp"
    """How name servers are asked that are not behind TLS. `tcp_and_udp` asks by UDP, and by TCP
    when an answer was cut."""

    nameservers: Annotated[list[NameServer], Field(min_length=1)] = Field(default_factory=list)
    """The name servers, each as an address or a name, with a port if it is not 53; behind TLS as
    `tls://192.0.2.53` (port 853) or `https://dns.example/dns-query`, and with `#dns.example` at the
    end if the certificate is for another name than the one before. When the key is missing the
    system's are used (`/etc/resolv.conf`)."""

    min_ttl: Count = 0
    """The shortest time in seconds that an answer is kept."""

    max_ttl: Count = 86_400
    """The longest time in seconds that an answer is kept; at least `min_ttl`."""

    cache_size: Count = 8_192
    """How many names are kept; the least recently used go first."""

    @model_validator(mode="after")
    def _ordered(self, info: ValidationInfo) -> Dns:
        if self.min_ttl > self.max_ttl and not info.context:
            unset = "" if "max_ttl" in self.model_fields_set else ", its default"
            refuse(f"must not be above max_ttl ({self.max_ttl}{unset})", at="min_ttl")
        return self


class Network(Model):
    """How flows are carried. Each key in an endpoint's own `network` table wins over the same key
    in the `network` table of the file; the command line wins over both."""

    no_tcp: Flag = False
    """Do not relay TCP."""

    use_udp: Flag = False
    """Relay UDP on the same address and port."""

    ipv6_only: Flag = False
    """Listeners on an IPv6 address take no IPv4 clients."""

    tcp_timeout: WholeSeconds = 5
    """Seconds from accepting a client to being connected with the target, name resolution
    included; 0 leaves it to the system."""

    udp_timeout: WholeSeconds = 30
    """Seconds without a datagram in either direction after which a UDP association ends; 0 means
    never."""

    tcp_keepalive: Annotated[StrictInt, Field(ge=0, le=HIGHEST_KEEPALIVE)] = 15
    """Seconds of silence before a keepalive probe, and between two probes, on both sides; 0
    switches probes off."""

    tcp_keepalive_probe: Annotated[StrictInt, Field(ge=1, le=HIGHEST_PROBES)] = 3
    """How many probes may stay unanswered before a connection counts as dead."""

    send_mptcp: Flag = False
    """Connect to targets with multipath TCP; plain TCP where the system has none."""

    accept_mptcp: Flag = False
    """Listen with multipath TCP; plain TCP where the system has none."""

    send_proxy: SendProxy = False
    """Send a PROXY protocol header to the target, before anything else."""

    send_proxy_version: Annotated[StrictInt, Field(ge=1, le=2)] = 2
    """The version of that header."""

    send_proxy_udp: SendProxyUdp = False
    """Send a header of version 2 in front of the first datagram of each UDP association."""

    accept_proxy: AcceptProxy = False
    """Expect a PROXY protocol header from the client: its addresses count from then on, for
    balancing, limits, access lists, hooks and logs. `optional` takes clients without one too."""

    accept_proxy_timeout: WholeSeconds = 5
    """Seconds from accepting the client until that header is there; 0 means for ever.
    `accept_timeout` is accepted as another name."""

    accept_proxy_from: TrustedList = Field(default_factory=list)
    """Networks whose headers count, as `10.0.0.0/8`; empty trusts everybody."""

    handshake_timeout: Seconds = 10.0
    """Seconds that the handshakes of a transport may take on either side; 0 means for ever.
    Fractions are allowed."""

    idle_timeout: Seconds = 0.0
    """Seconds without a byte in either direction after which a TCP flow is ended; 0 means never.
    Fractions are allowed."""

    linger: Seconds = 30.0
    """Seconds that a TCP flow of which one direction has closed may go without progress in the
    other; 0 means for ever. Fractions are allowed."""

    max_connections: Count = 0
    """How many TCP flows an endpoint carries at once; 0 means no limit."""

    max_connection_rate: Count = 0
    """How many new TCP flows an endpoint takes a second; 0 means no limit."""

    max_connections_per_client: Count = 0
    """How many TCP flows one client address (for IPv6: one /64) may have at once in an endpoint; 0
    means no limit."""

    max_associations: Count = 4_096
    """How many UDP associations an endpoint keeps; the least recently used one gives way. 0 means
    no limit."""

    max_rate_up: Rate = 0
    """How many bytes a second an endpoint takes from all its clients together: a number, or text as
    `10MiB/s` or `100Mbit/s`; 0 means no limit."""

    max_rate_down: Rate = 0
    """The same from targets to clients."""

    max_rate_up_per_client: Rate = 0
    """The same for one client address (for IPv6: one /64), from the client."""

    max_rate_down_per_client: Rate = 0
    """The same for one client address (for IPv6: one /64), to the client."""

    max_rate_up_per_flow: Rate = 0
    """The same for one flow, from the client."""

    max_rate_down_per_flow: Rate = 0
    """The same for one flow, to the client."""

    max_fails: Count = 2
    """With `failover`: after how many failures in a row a remote is left alone; 0 means never."""

    fail_timeout: Count = 120_000
    """With `failover`: how long such a remote is left alone, in **milliseconds**, before it is
    tried again with few flows at first."""

    check: HealthCheck | None = None
    """Active health checks of all remotes."""


class Endpoint(Model):
    """One rule: where to listen, and where what comes in goes."""

    listen: Listen
    """The address to listen on: `0.0.0.0:5000`, `[::]:5000`, `:5000` for every IPv4 address,
    `localhost:5000`, or a range of ports as `0.0.0.0:5000-5010`. Port 0 takes a free port. `local`
    is accepted as another name of this key."""

    remote: Remote
    """Where flows go: `example.com:443`, `192.0.2.7:443` or `[2001:db8::1]:443`. A name is
    resolved for each flow. When `listen` has a range of ports, a range as long as that pairs them
    one by one, and a single port serves all of them."""

    name: Label | None = None
    """What the endpoint is called in logs and metrics; the text of `listen` if it has no name."""

    extra_remotes: list[Remote] = Field(default_factory=list)
    """Further remotes, for `balance`, `failover` and hooks. Not used without one of them."""

    balance: BalanceText = "off"
    """How flows are spread over `remote` and `extra_remotes`: `off`, `roundrobin`, `iphash` (by the
    client's address), `leastconn` (the fewest flows), `random2` (the better of two at random) or
    `failover` (the first that works). All but the first and the last take weights, 0 to 255, one
    for each remote: `roundrobin: 4, 2, 1`."""

    failover: Failover = False
    """When a remote fails, go to the next one within the same client connection, and leave remotes
    that fail alone for a while. While balance is off, the first remote that works is used."""

    through: Through | None = None
    """Where flows leave the machine: an address, with a port if it matters, or the name of a
    device whose address is used."""

    interface: Device | None = None
    """The device that sockets towards the target are bound to."""

    listen_interface: Device | None = None
    """The device that the listening sockets are bound to."""

    listen_transport: ListenWrapping | None = None
    """What clients wrap their connection in: a table, or realm's text as
    `ws;host=a.example;path=/chat;tls;cert=a.pem;key=a.key`."""

    remote_transport: RemoteWrapping | None = None
    """What the connection to the target is wrapped in: a table, or realm's text as
    `ws;host=a.example;path=/chat;tls;sni=a.example`."""

    network: Network = Field(default_factory=Network)
    """The endpoint's own `network` table."""

    route: Annotated[
        Routes,
        BeforeValidator(as_routes, json_schema_input_type=list[Route] | Route | dict[str, Remote]),
    ] = Field(default_factory=list)
    """Remotes by server name, HTTP host or first bytes. A table of server names and remotes,
    `{ "*.a.example" = "192.0.2.1:443" }`, is short for a list of routes."""

    route_timeout: Seconds = 3.0
    """Seconds to wait for what the client says first; then flows go to `remote`. 0 means for ever.
    Fractions are allowed."""

    allow: AccessList = Field(default_factory=list)
    """Networks whose clients are let in, as `10.0.0.0/8`, and nobody else; empty lets in everybody
    who is not in `deny`."""

    deny: AccessList = Field(default_factory=list)
    """Networks whose clients are refused, also when `allow` has them."""

    quota: Quota = 0
    """How many bytes the endpoint carries, both directions together, before it refuses new flows
    and ends those it has: a number, or text as `500GB` or `1.5TiB`; 0 means no end."""

    hook: Hook | None = None
    """A Python function that decides about each flow: `module:function`, or the path of a file, as
    `/etc/qanat/hooks.py:function`. Without a function's name a file's `decide` is asked. It lets
    flows in, refuses them, or chooses their remote; with `balance` or `failover` it does not
    choose."""

    hook_first_bytes: Annotated[StrictInt, Field(ge=0, le=65_536)] = 0
    """How many of the client's first bytes the hook is shown; 0 asks it at once."""

    hook_timeout: Seconds = 5.0
    """Seconds for the first bytes and the decision together. Fractions are allowed."""

    hook_on_failure: OnFailure = "refuse"
    """What becomes of a flow whose hook fails or takes too long."""

    @model_validator(mode="after")
    def _paired(self) -> Endpoint:
        listen = self.listen_address.ports
        targets = [("remote", self.remote)]
        targets += [("extra_remotes", text) for text in self.extra_remotes]
        targets += [("route", text) for route in self.route for text in route.remotes()]
        for field, text in targets:
            ports = address.parse_remote(text).ports
            if len(ports) not in (1, len(listen)):
                refuse(
                    f"{len(ports)} ports for the {len(listen)} of listen",
                    "one port, or as many as listen has",
                    at=field,
                )
        return self

    @model_validator(mode="after")
    def _weighted(self) -> Endpoint:
        try:
            self.balancing.check(1 + len(self.extra_remotes))
        except BalanceError as error:
            refuse(str(error), error.hint, at="balance")
        return self

    @model_validator(mode="after")
    def _unambiguous(self) -> Endpoint:
        first: dict[tuple[str, str], int] = {}
        for number, route in enumerate(self.route):
            for kind, pattern in route.patterns():
                if first.setdefault((kind, pattern), number) != number:
                    refuse(
                        f"{kind} {pattern} is in two routes, of which the first would count",
                        at="route",
                    )
        return self

    @property
    def listen_address(self) -> address.ListenAddress:
        return address.parse_listen(self.listen)

    @property
    def remote_address(self) -> address.RemoteAddress:
        return address.parse_remote(self.remote)

    @property
    def balancing(self) -> Balancing:
        return parse_balance(self.balance)

    @property
    def listen_wrapping(self) -> ListenTransport | None:
        return listen_transport(self.listen_transport)

    @property
    def remote_wrapping(self) -> RemoteTransport | None:
        return remote_transport(self.remote_transport)

    @property
    def through_address(self) -> address.ThroughAddress | None:
        return None if self.through is None else address.parse_through(self.through)


class Limits(Model):
    """Limits for all endpoints together, beside each endpoint's own in its `network` table."""

    max_connections: Count = 0
    """How many TCP flows are carried at once; 0 means no limit."""

    max_connection_rate: Count = 0
    """How many new TCP flows are taken a second; 0 means no limit."""

    max_connections_per_client: Count = 0
    """How many TCP flows one client address (for IPv6: one /64) may have at once; 0 means no
    limit."""

    max_associations: Count = 16_384
    """How many UDP associations are kept; the least recently used one gives way. 0 means no
    limit."""


def _control(value: object) -> object:
    if not isinstance(value, bool) and not (isinstance(value, str) and value):
        refuse("must be the path of a socket, true or false")
    return value


class Config(Model):
    """A whole configuration."""

    log: Log = Field(default_factory=Log)
    """What is written down, and where to."""

    dns: Dns = Field(default_factory=Dns)
    """How host names become addresses."""

    network: Network = Field(default_factory=Network)
    """How flows are carried, for all endpoints that do not say otherwise."""

    limits: Limits = Field(default_factory=Limits)
    """Limits for all endpoints together."""

    workers: Annotated[StrictInt, Field(ge=0, le=1024)] = 0
    """How many threads carry flows; 0 means one for each processor core."""

    drain: Seconds = 10.0
    """Seconds that flows may go on when the program is asked to stop. Fractions are allowed."""

    pipe_page: Annotated[StrictInt, Field(ge=1, le=HIGHEST_PIPE_PAGE)] | None = None
    """The size of the pipes that carry bulk traffic, in pages of 4096 bytes. When the key is
    missing the engine chooses by what a flow carries."""

    metrics: OnePort | None = None
    """The address on which metrics are served to Prometheus. When the key is missing they are
    served over the control socket alone."""

    control: Annotated[bool | str, BeforeValidator(_control)] = True
    """The path of the control socket; `true` for its usual place in the runtime directory, `false`
    for none."""

    endpoints: list[Endpoint] = Field(default_factory=list)
    """The rules. A configuration that is run needs at least one."""


MODELS: Final[dict[str, type[Model]]] = {
    "log": Log,
    "dns": Dns,
    "network": Network,
    "limits": Limits,
    "endpoint": Endpoint,
    "config": Config,
}
"""The kinds of tables whose keys realm's files may have, by the names that :data:`ALIASES` uses. A
key there that nobody knows is passed over with a warning; in all other tables it is an error."""

TABLES: Final[tuple[type[Model], ...]] = (
    *MODELS.values(),
    ListenTransport,
    ListenTls,
    RemoteTransport,
    RemoteTls,
    Certificate,
    WebSocket,
    Route,
    Check,
)
"""Every table, those within others too."""
