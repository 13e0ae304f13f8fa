"""The configuration of ``qanat proxy``: every key, its type, its default and its range.

The words are those of the command line. The text under each field is its documentation. Does no
I/O.
"""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from qanat.config import address
from qanat.config.access_rule import RuleError, parse_rule
from qanat.config.models import Log
from qanat.config.refusal import refuse
from qanat.config.table import Model
from qanat.config.values import Count, Flag, OnePort, Rate, Seconds, Text

__all__ = ["FORMS", "ProxyConfig", "ProxyLimits"]

FORMS: Final = ("socks5", "http", "mixed")
"""The keys with addresses to listen on."""

_HOPS: Final = ("socks5", "socks5h", "socks4a", "http", "https")


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _listen(text: str) -> str:
    """``:1080`` is every address, as people write it for proxies."""
    full = f"[::]{text}" if text.startswith(":") and text[1:].isdigit() else text
    try:
        parsed = address.parse_listen(full)
    except address.AddressError as error:
        refuse(str(error), error.hint, kind="address")
    if len(parsed.ports) > 1:
        refuse("one port is wanted here", str(parsed).partition("-")[0])
    return full


def _rule(text: str) -> str:
    try:
        parse_rule(text)
    except RuleError as error:
        refuse(str(error), error.hint)
    return text


def _hop(text: str) -> str:
    try:
        parts = urlsplit(text)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        refuse(f"is no URL of a proxy: {error}", "as socks5h://user:secret@192.0.2.1:1080")
    if scheme not in _HOPS:
        refuse(f'"{scheme}" is no kind of proxy', f"one of {', '.join(_HOPS)}")
    if not host or (parts.path not in ("", "/")) or parts.query or parts.fragment:
        refuse("is no URL of a proxy", "as socks5h://user:secret@192.0.2.1:1080")
    if port == 0:
        refuse("has no port that can be reached")
    return text


Addresses = Annotated[list[Annotated[Text, AfterValidator(_listen)]], BeforeValidator(_listed)]


class ProxyLimits(Model):
    """What may be asked of the proxy at most."""

    max_connections: Count = 10_000
    """Connections of clients at once; more are refused at once. 0 means no limit."""

    max_connections_per_client: Count = 0
    """Connections of one client address (for IPv6: one /64) at once; 0 means no limit."""

    max_connections_per_user: Count = 0
    """Connections of one user at once; the users file may say otherwise for a user. 0 means no
    limit."""

    rate_up: Rate = 0
    """Bytes a second that one user may send, all connections together; 0 means no limit."""

    rate_down: Rate = 0
    """Bytes a second that one user may receive, all connections together; 0 means no limit."""

    max_associations: Count = 1024
    """UDP associations of SOCKS5 at once; 0 means no limit."""


class ProxyConfig(Model):
    """A whole configuration of a proxy."""

    socks5: Addresses = Field(default_factory=list)
    """Addresses for SOCKS5 (and SOCKS4, SOCKS4a): one, or a list. `:1080` is all addresses."""

    http: Addresses = Field(default_factory=list)
    """Addresses for HTTP: CONNECT and plain requests."""

    mixed: Addresses = Field(default_factory=list)
    """Addresses for both: what the client's first byte says."""

    tls: Annotated[list[Text], BeforeValidator(_listed)] = Field(default_factory=list)
    """Certificate and key, `["cert.pem", "key.pem"]`: clients speak TLS to the proxy itself. On
    `mixed` addresses both work, with TLS and without."""

    auth: Text | None = None
    """The file of users and their hashed passwords (see `qanat proxy passwd`). Without it nobody
    is asked."""

    guest: Flag = False
    """Whether clients without a name are served beside users of the file."""

    rules: list[Annotated[Text, AfterValidator(_rule)]] = Field(default_factory=list)
    """Who may go where, the first rule that fits decides: `deny port=25`, `allow user=alice
    to=*.example.com port=443`. When none fits, it is allowed, unless there is a rule that allows
    something. `@FILE` in `to=` reads domains and networks from a file."""

    private: Flag = False
    """Whether clients may reach private networks through the proxy. Loopback, link-local and
    metadata addresses, and the proxy itself, are for clients on loopback alone in any case."""

    via: Annotated[list[Annotated[Text, AfterValidator(_hop)]], BeforeValidator(_listed)] = Field(
        default_factory=list
    )
    """Proxies to go through, the nearest first: `socks5h://user:secret@192.0.2.1:1080`."""

    udp: Flag = True
    """Whether SOCKS5 clients may send datagrams (UDP ASSOCIATE)."""

    connect_timeout: Seconds = 10.0
    """Seconds to reach a target, looking up its name included."""

    handshake_timeout: Seconds = 10.0
    """Seconds that a client has to say what it wants."""

    idle_timeout: Seconds = 600.0
    """Seconds without a byte after which a connection ends; 0 means never."""

    drain: Seconds = 10.0
    """Seconds that connections may go on when the program is asked to stop."""

    limits: ProxyLimits = Field(default_factory=ProxyLimits)
    """What may be asked of the proxy at most."""

    log: Log = Field(default_factory=Log)
    """What is written down, and where to."""

    metrics: OnePort | None = None
    """The address on which metrics are served to Prometheus."""

    control: bool | str = True
    """The path of the control socket; `true` for its usual place, `false` for none."""

    @model_validator(mode="after")
    def _whole(self) -> ProxyConfig:
        if len(self.tls) not in (0, 2):
            refuse("needs two files", 'as ["cert.pem", "key.pem"]', at="tls")
        if self.guest and self.auth is None:
            refuse("has no meaning without users", "auth = FILE", at="guest")
        return self
