"""A host and a port, as targets are asked for and printed.

Hosts are kept as they were asked for, apart from brackets; an IPv6 literal may carry a zone. Names
are not looked up here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

__all__ = ["Address"]

_NAME: Final = re.compile(
    r"(?=.{1,254}\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)"
    r"(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?\Z"
)
_NUMERIC: Final = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)\Z")
"""The last label of what old resolvers read as an IPv4 address: ``127.1``, ``0x7f000001``."""


@dataclass(frozen=True, slots=True)
class Address:
    """``host`` is a name (ASCII, IDNA applied by whoever had it as text) or an IP literal without
    brackets; ``port`` is 1 to 65535, or 0 where the kernel chooses."""

    host: str
    port: int

    def __post_init__(self) -> None:
        if not isinstance(self.port, int):
            raise ValueError(f"port {self.port!r} is not a number")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port} is not between 0 and 65535")
        if not self.host:
            raise ValueError("the host is empty")

    @property
    def ip(self) -> IPv4Address | IPv6Address | None:
        """The host as an address, or None if it is a name."""
        first = self.host[0]
        if not (first.isdigit() or ":" in self.host):
            return None
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Address:
        """``host:port``, ``[v6]:port``; the port may be absent only if there is a default.

        Raises ValueError with a sentence that holds the text. Numbers that some resolvers take for
        IPv4 addresses (``127.1``, ``0x7f.1``) are refused, so that no rule about addresses can be
        slipped past.
        """
        host, colon, port_text = text.rpartition(":")
        if text.startswith("["):
            inside, bracket, rest = text[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise ValueError(f"{text!r} is no host and port: the bracket is not closed")
            host, colon, port_text = inside, rest[:1], rest[1:]
            if not isinstance(_literal(host), IPv6Address):
                raise ValueError(f"{text!r}: only an IPv6 address stands in brackets")
        elif ":" in host:
            raise ValueError(f"{text!r} is ambiguous: write an IPv6 address in brackets")
        elif not colon:
            host = text
        if colon:
            if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5):
                raise ValueError(f"{text!r}: {port_text!r} is not a port")
            port = int(port_text)
        elif default_port is not None:
            port = default_port
        else:
            raise ValueError(f"{text!r} has no port")
        if not 1 <= port <= 65535:
            raise ValueError(f"{text!r}: port {port} is not between 1 and 65535")
        check_host(host, text)
        return cls(host, port)

    @classmethod
    def of_socket(cls, name: Any) -> Address:
        """From what ``getsockname`` and ``getpeername`` return for IP sockets."""
        host, port = name[0], name[1]
        if len(name) == 4 and name[3] and "%" not in host:
            host = f"{host}%{name[3]}"
        return cls(host, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def check_host(host: str, text: str) -> None:
    """Raise ValueError unless the host is an IP literal or a name that can be looked up."""
    if _literal(host) is not None:
        return
    if not host.isascii() or _NAME.match(host) is None:
        raise ValueError(f"{text!r}: {host!r} is no host name")
    if _NUMERIC.match(host.rstrip(".").rpartition(".")[2]):
        raise ValueError(f"{text!r}: {host!r} is neither a name nor an address")
