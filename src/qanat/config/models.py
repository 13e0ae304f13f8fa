"""The models of a configuration: every key, its type, its default and its range.

The text under each field is its documentation: ``docs/configuration.md`` and the JSON Schema are
made of it. The models know no file and no line; what they refuse is told as
:class:`qanat.errors.ConfigError`, also when they are built in Python. They do no I/O.

Two kinds of keys look alike to a user and are kept apart here: keys that work, and keys whose work
is not built yet. The latter accept the values that ask for nothing (``balance = "off"``) and
refuse all others, so that nobody runs a file that silently does less than it says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from qanat.config import address

__all__ = [
    "ALIASES",
    "DEPRECATED",
    "MODELS",
    "PART",
    "Config",
    "Dns",
    "DnsMode",
    "DnsProtocol",
    "Endpoint",
    "Limits",
    "Log",
    "LogFormat",
    "LogLevel",
    "Model",
    "Network",
]

LogLevel = Literal["off", "error", "warn", "info", "debug", "trace"]
LogFormat = Literal["text", "json"]
DnsMode = Literal["ipv4_only", "ipv6_only", "ipv4_and_ipv6", "ipv4_then_ipv6", "ipv6_then_ipv4"]
DnsProtocol = Literal["tcp", "udp", "tcp_and_udp"]

# The kernel's limits for TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT; beyond them: EINVAL.
HIGHEST_KEEPALIVE: Final = 32_767
HIGHEST_PROBES: Final = 127
HIGHEST: Final = 2**32 - 1
HIGHEST_PIPE_PAGE: Final = 2**19  # 2 GiB in pages of 4 KiB: the kernel's own limit for one pipe

PART: Final = {"part": True}
"""Validation context for one file of several: what only the whole can tell is not asked."""

ALIASES: Final = {
    "endpoint": {"local": "listen"},
    "network": {"accept_timeout": "accept_proxy_timeout"},
}
"""Other names under which a file may give a key, by kind of table."""

DEPRECATED: Final = frozenset({"zero_copy", "fast_open"})
"""Keys of old files that are accepted anywhere and do nothing."""


def _refuse(
    message: str, hint: str | None = None, *, kind: str = "wrong", at: str = ""
) -> NoReturn:
    """``at`` names the field when a check of the whole model finds fault with one."""
    raise PydanticCustomError(
        kind, "{message}", {"message": message, "hint": hint, "at": at}
    ) from None


def _not_yet(message: str, hint: str | None = None) -> NoReturn:
    _refuse(message, hint, kind="not_yet")


def _address(parse: Callable[[str], object]) -> Callable[[str], str]:
    def check(text: str) -> str:
        try:
            parse(text)
        except address.AddressError as error:
            _refuse(str(error), error.hint, kind="address")
        return text

    return check


def _one_port(text: str) -> address.ListenAddress:
    parsed = address.parse_listen(text)
    if len(parsed.ports) > 1:
        raise address.AddressError("one port is wanted here", str(parsed).partition("-")[0])
    return parsed


def _no_transport(text: str) -> str:
    if text.strip():
        _not_yet("transports are not yet supported", "take the key out to relay plain TCP")
    return text


def _no_balance(text: str) -> str:
    strategy, _, weights = text.partition(":")
    match strategy.strip():
        case "off":
            return text
        case "iphash" | "roundrobin":
            _not_yet("balancing is not yet supported", 'flows go to remote alone with "off"')
        case _ if weights and not strategy.strip():
            _refuse("the strategy before the colon is missing", "one of off, iphash, roundrobin")
        case _:
            _refuse("not a balancing strategy", "one of off, iphash, roundrobin")


def _no_proxy(value: bool) -> bool:
    if value:
        _not_yet("the PROXY protocol is not yet supported", "false, or take the key out")
    return value


def _nothing(feature: str) -> Callable[[object], None]:
    def check(value: object) -> None:
        if value is False or value is None or value in ("", [], {}, ()):
            return
        _not_yet(f"{feature} not yet supported", "take the key out")

    return check


def _label(text: str) -> str:
    if not text.strip() or text != text.strip() or not text.isprintable():
        _refuse("a name needs printable characters, without blanks around them")
    return text


Flag = StrictBool
Text = Annotated[StrictStr, Field(min_length=1)]
Count = Annotated[StrictInt, Field(ge=0, le=HIGHEST)]
WholeSeconds = Annotated[StrictInt, Field(ge=0, le=HIGHEST)]
Seconds = Annotated[StrictFloat, Field(ge=0, le=HIGHEST, allow_inf_nan=False)]
Listen = Annotated[StrictStr, AfterValidator(_address(address.parse_listen))]
Remote = Annotated[StrictStr, AfterValidator(_address(address.parse_remote))]
Through = Annotated[StrictStr, AfterValidator(_address(address.parse_through))]
NameServer = Annotated[StrictStr, AfterValidator(_address(address.parse_nameserver))]
Device = Annotated[StrictStr, AfterValidator(_address(address.parse_interface))]
OnePort = Annotated[StrictStr, AfterValidator(_address(_one_port))]
Transport = Annotated[StrictStr, AfterValidator(_no_transport)]
Balance = Annotated[StrictStr, AfterValidator(_no_balance)]
Proxy = Annotated[StrictBool, AfterValidator(_no_proxy)]


class _Telling(type(BaseModel)):  # type: ignore[misc]  # the type has no public name
    """Makes a wrong value in Python a :class:`ConfigError`, as it is in a file.

    Only the call of a class comes by here. Nested validation does not, so that all mistakes of a
    file are still collected into one error.
    """

    if not TYPE_CHECKING:

        def __call__(cls, *args: object, **kwargs: object) -> object:
            try:
                return super().__call__(*args, **kwargs)
            except ValidationError as error:
                from qanat.config.explain import explain
                from qanat.errors import ConfigError

                raise ConfigError(explain(error, cls)) from None


if TYPE_CHECKING:
    _Root = BaseModel
else:

    class _Root(BaseModel, metaclass=_Telling):
        pass


class Model(_Root):
    """What the models have in common: they are frozen and know their keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


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
    """How name servers are asked. `tcp_and_udp` asks by UDP, and by TCP when an answer was cut."""

    nameservers: Annotated[list[NameServer], Field(min_length=1)] = []
    """The name servers, each as an address or a name, with a port if it is not 53. When the key is
    missing the system's are used (`/etc/resolv.conf`)."""

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
            _refuse(f"must not be above max_ttl ({self.max_ttl}{unset})", at="min_ttl")
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

    send_proxy: Proxy = False
    """Send a PROXY protocol header to the target. Not yet supported."""

    send_proxy_version: Annotated[StrictInt, Field(ge=1, le=2)] = 2
    """The version of that header."""

    accept_proxy: Proxy = False
    """Expect a PROXY protocol header from the client. Not yet supported."""

    accept_proxy_timeout: WholeSeconds = 5
    """Seconds to wait for that header. `accept_timeout` is accepted as another name."""

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

    max_fails: Annotated[Any, AfterValidator(_nothing("failover is"))] = None
    """After how many failures a remote is left alone. Not yet supported."""

    fail_timeout: Annotated[Any, AfterValidator(_nothing("failover is"))] = None
    """How long a failed remote is left alone. Not yet supported."""


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

    name: (
        Annotated[StrictStr, Field(min_length=1, max_length=100), AfterValidator(_label)] | None
    ) = None
    """What the endpoint is called in logs and metrics; the text of `listen` if it has no name."""

    extra_remotes: list[Remote] = []
    """Further remotes for balancing. Not used while `balance` is off."""

    balance: Balance = "off"
    """How flows are spread over the remotes. Only `off` is supported yet; `iphash` and
    `roundrobin` are not."""

    through: Through | None = None
    """Where flows leave the machine: an address, with a port if it matters, or the name of a
    device whose address is used."""

    interface: Device | None = None
    """The device that sockets towards the target are bound to."""

    listen_interface: Device | None = None
    """The device that the listening sockets are bound to."""

    listen_transport: Transport | None = None
    """What clients wrap their connection in. Not yet supported."""

    remote_transport: Transport | None = None
    """What the connection to the target is wrapped in. Not yet supported."""

    network: Network = Field(default_factory=Network)
    """The endpoint's own `network` table."""

    failover: Annotated[Any, AfterValidator(_nothing("failover is"))] = None
    """Go to the next remote when one fails. Not yet supported."""

    route: Annotated[Any, AfterValidator(_nothing("routing by server name is"))] = None
    """Choose the remote by the server name a client asks for. Not yet supported."""

    allow: Annotated[Any, AfterValidator(_nothing("access lists are"))] = None
    """Networks whose clients are let in. Not yet supported."""

    deny: Annotated[Any, AfterValidator(_nothing("access lists are"))] = None
    """Networks whose clients are refused. Not yet supported."""

    hook: Annotated[Any, AfterValidator(_nothing("hooks are"))] = None
    """Code that decides about each flow. Not yet supported."""

    @model_validator(mode="after")
    def _paired(self) -> Endpoint:
        listen = self.listen_address.ports
        for field, texts in (("remote", [self.remote]), ("extra_remotes", self.extra_remotes)):
            for text in texts:
                ports = address.parse_remote(text).ports
                if len(ports) not in (1, len(listen)):
                    _refuse(
                        f"{len(ports)} ports for the {len(listen)} of listen",
                        "one port, or as many as listen has",
                        at=field,
                    )
        return self

    @property
    def listen_address(self) -> address.ListenAddress:
        return address.parse_listen(self.listen)

    @property
    def remote_address(self) -> address.RemoteAddress:
        return address.parse_remote(self.remote)

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
    if isinstance(value, str) and value:
        return value
    if isinstance(value, bool):
        return value
    _refuse("must be the path of a socket, true or false")


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

    hook: Annotated[Any, AfterValidator(_nothing("hooks are"))] = None
    """Code that decides about each flow. Not yet supported."""

    endpoints: list[Endpoint] = []
    """The rules. A configuration that is run needs at least one."""


MODELS: Final[dict[str, type[Model]]] = {
    "log": Log,
    "dns": Dns,
    "network": Network,
    "limits": Limits,
    "endpoint": Endpoint,
    "config": Config,
}
"""The kinds of tables, by the names that :data:`ALIASES` uses."""
