"""The grammar of ``nameservers``: plain servers, and those that are asked through TLS or HTTPS.

Pure. Names in it are resolved elsewhere, once at start.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from qanat.config.address import (
    AddressError,
    Host,
    NameServer,
    join,
    parse_host,
    parse_nameserver,
)

__all__ = ["SecureNameServer", "parse_server"]

PORTS: Final = {"tls": 853, "https": 443}
QUERY_PATH: Final = "/dns-query"

_SECURE: Final = re.compile(
    r"(?P<scheme>tls|https)://(?P<where>[^/#]*)(?P<path>/[!-\"$-~]*)?(?:#(?P<name>.*))?"
)
_SHAPE: Final = "as tls://192.0.2.53, tls://192.0.2.53#dns.example or https://dns.example/dns-query"


@dataclass(frozen=True, slots=True)
class SecureNameServer:
    """A server behind TLS. Its certificate has to be for ``name``."""

    scheme: Literal["tls", "https"]
    host: Host
    port: int
    path: str = ""
    """Of requests over HTTPS."""
    name: str = ""
    """The host itself if nothing else was said."""

    def __str__(self) -> str:
        return self.at(join(self.host, self.port).rpartition(":")[0])

    def at(self, address: str) -> str:
        """The server at one address, with brackets if it needs some: the form that a plan has."""
        return f"{self.scheme}://{address}:{self.port}{self.path}#{self.name or self.host}"


@lru_cache(maxsize=256)
def parse_server(text: str) -> NameServer | SecureNameServer:
    """``ip``, ``ip:port``, ``name``; ``tls://host``, ``https://host/path``, each with ``#name``."""
    scheme, separator, _ = text.partition("://")
    if not separator:
        return parse_nameserver(text)
    if scheme not in PORTS:
        hint = "tls:// or https://" if scheme not in ("udp", "tcp") else "protocol = says how"
        raise AddressError(f"name servers are not asked by {scheme}://", hint)
    found = _SECURE.fullmatch(text)
    if found is None or not found["where"]:
        raise AddressError("not a name server", _SHAPE)
    if scheme == "tls" and found["path"] not in (None, "/"):
        raise AddressError("a server asked through TLS has no path", f"https://{found['where']}")
    host, port = _where(found["where"], PORTS[scheme])
    path = "" if scheme == "tls" else found["path"] or QUERY_PATH
    name = found["name"]
    if name == "":
        raise AddressError("the name after # is missing", _SHAPE)
    name = str(host) if name is None else str(parse_host(name))
    if scheme == "https" and ":" in name:
        # An IPv6 address has brackets in a request over HTTPS and none in TLS: one name fits both.
        raise AddressError("requests to an IPv6 address need a name", f"{text}#dns.example")
    return SecureNameServer("tls" if scheme == "tls" else "https", host, port, path, name)


def _where(text: str, port: int) -> tuple[Host, int]:
    server = parse_nameserver(text)
    # A bare IPv6 address has colons, and no port.
    told = "]:" in text or text.count(":") == 1
    return server.host, server.port if told else port
