"""The address grammars of ``listen``, ``remote``, ``through`` and ``nameservers``.

Pure: text goes in, a value that can't be wrong comes out, or an :class:`AddressError` that says
what would be right. Nothing here resolves a name or asks the system what devices it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NoReturn

from qanat.config.places import printable

__all__ = [
    "AddressError",
    "Host",
    "HostName",
    "InterfaceName",
    "IpAddress",
    "ListenAddress",
    "NameServer",
    "PortRange",
    "RemoteAddress",
    "ThroughAddress",
    "join",
    "parse_host",
    "parse_interface",
    "parse_listen",
    "parse_nameserver",
    "parse_remote",
    "parse_through",
]

DNS_PORT: Final = 53
HIGHEST_PORT: Final = 65_535
WILDCARD: Final = IPv4Address("0.0.0.0")

# Longest text that can be an address: a host name of 253 characters, brackets and a port range.
_LONGEST: Final = 300
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_DIGITS: Final = re.compile(r"[0-9]{1,10}")
_NUMERIC: Final = re.compile(r"[0-9.]+|0[xX][0-9a-fA-F]+")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# The kernel's IFNAMSIZ is 16 with the final NUL.
_INTERFACE: Final = re.compile(r"[^\s/:\x00-\x1f\x7f]{1,15}")


class AddressError(ValueError):
    """A text is not an address. ``hint`` says what would be, when that is known."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        # Texts that are refused are quoted, and they may hold anything.
        super().__init__(printable(message))
        self.hint: str | None = None if hint is None else printable(hint)


IpAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class HostName:
    """A name for a resolver: letters, digits, ``-`` and ``_`` in labels, at most 253 characters."""

    name: str

    def __post_init__(self) -> None:
        _check_name(self.name)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class InterfaceName:
    """The name of a network device, as ``eth0``."""

    name: str

    def __post_init__(self) -> None:
        if not _INTERFACE.fullmatch(self.name) or self.name in (".", ".."):
            raise AddressError(
                "not the name of a network device",
                "1 to 15 characters without blanks, slashes and colons, as eth0",
            )
        if len(self.name.encode("utf-8", "replace")) > 15:
            raise AddressError("the name of a network device has at most 15 bytes")

    def __str__(self) -> str:
        return self.name


Host = IPv4Address | IPv6Address | HostName


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports ``first`` to ``last``, both included. Port 0 can only stand alone."""

    first: int
    last: int

    def __post_init__(self) -> None:
        for port in (self.first, self.last):
            if not 0 <= port <= HIGHEST_PORT:
                raise AddressError(f"port {port} is not a port", "0 to 65535")
        if self.first > self.last:
            raise AddressError(
                f"the port range {self.first}-{self.last} runs backwards",
                f"{self.last}-{self.first}",
            )
        if self.first == 0 != self.last:
            raise AddressError("a port range can't begin with 0", f"1-{self.last}")

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last + 1))

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def overlaps(self, other: PortRange) -> bool:
        """Whether one port is in both. Port 0 is every time another port: it overlaps nothing."""
        return 0 < self.first <= other.last and 0 < other.first <= self.last


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where an endpoint listens: a literal, or a name that is resolved once at start."""

    host: Host
    ports: PortRange

    def __str__(self) -> str:
        return join(self.host, self.ports)

    def texts(self) -> list[str]:
        """``host:port`` for each port, with brackets around IPv6."""
        return [join(self.host, port) for port in self.ports]


@dataclass(frozen=True, slots=True)
class RemoteAddress:
    """Where flows go: a literal, or a name that is resolved for each flow."""

    host: Host
    ports: PortRange

    def __post_init__(self) -> None:
        if self.ports.first == 0:
            raise AddressError("nothing can be reached at port 0", "1 to 65535")

    def __str__(self) -> str:
        return join(self.host, self.ports)

    def port_at(self, index: int) -> int:
        """The port for the listener's port number ``index``; one port serves all of them."""
        return self.ports.first if len(self.ports) == 1 else self.ports.first + index

    def fits(self, listen: PortRange) -> bool:
        """Whether each port of the listener has exactly one here."""
        return len(self.ports) == 1 or len(self.ports) == len(listen)


@dataclass(frozen=True, slots=True)
class ThroughAddress:
    """Where flows leave: an address (port 0: any), a name with a port, or a device."""

    host: Host | InterfaceName
    port: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= HIGHEST_PORT:
            raise AddressError(f"port {self.port} is not a port", "0 to 65535")

    def __str__(self) -> str:
        # A name without a port would be read as that of a device.
        bare = self.port == 0 and not isinstance(self.host, HostName)
        return str(self.host) if bare else join(self.host, self.port)


@dataclass(frozen=True, slots=True)
class NameServer:
    """A DNS server; a name is resolved by the system, once at start."""

    host: Host
    port: int = DNS_PORT

    def __post_init__(self) -> None:
        if not 1 <= self.port <= HIGHEST_PORT:
            raise AddressError(f"port {self.port} is not a name server's port", "1 to 65535")

    def __str__(self) -> str:
        return join(self.host, self.port)


def join(host: Host | InterfaceName, port: int | PortRange) -> str:
    """``host:port`` with brackets around IPv6."""
    return f"[{host}]:{port}" if isinstance(host, IPv6Address) else f"{host}:{port}"


@lru_cache(maxsize=8192)
def parse_listen(text: str) -> ListenAddress:
    """``1.2.3.4:p``, ``[v6]:p``, ``:::p``, ``name:p``, ``0:p``, ``*:p`` or ``:p``; p may be a-b."""
    shape = "host:port, as 0.0.0.0:5000, [::]:5000 or 0.0.0.0:5000-5010"
    host, ports = _split(text, shape)
    if host in ("", "*", "0"):
        return ListenAddress(WILDCARD, _ports(ports))
    return ListenAddress(_host(host), _ports(ports))


@lru_cache(maxsize=8192)
def parse_remote(text: str) -> RemoteAddress:
    """``host:port``; split at the last colon, so that ``::1:80`` is port 80 of ``::1``."""
    host, ports = _split(text, "host:port, as example.com:443 or [2001:db8::1]:443")
    if host == "":
        raise AddressError("the host before the port is missing", f"example.com:{ports}")
    if host == "*":
        raise AddressError("flows can't be sent to every address", f"127.0.0.1:{ports}")
    return RemoteAddress(_host(host), _ports(ports))


@lru_cache(maxsize=1024)
def parse_through(text: str) -> ThroughAddress:
    """``ip``, ``ip:port``, ``[v6]``, ``[v6]:port``, ``name:port``, or the name of a device."""
    shape = "an address as 192.0.2.7, an address with a port, or a device as eth0"
    _refuse_common_mistakes(text, shape)
    if text.startswith("[") and text.endswith("]"):
        return ThroughAddress(_bracketed(text))
    literal = _literal(text)
    if literal is not None:
        return ThroughAddress(literal)
    if ":" in text:
        host, _, port = text.rpartition(":")
        if host == "":
            raise AddressError("the address before the port is missing", shape)
        return ThroughAddress(_host(host), _port(port))
    if _NUMERIC.fullmatch(text):
        raise AddressError("not an IP address", shape)
    return ThroughAddress(parse_interface(text))


@lru_cache(maxsize=256)
def parse_nameserver(text: str) -> NameServer:
    """``ip``, ``ip:port``, ``[v6]:port``, ``name`` or ``name:port``; the port is 53 if not said."""
    _refuse_common_mistakes(text, "an address as 192.0.2.53 or 192.0.2.53:5353")
    if text.startswith("[") and text.endswith("]"):
        return NameServer(_bracketed(text))
    literal = _literal(text)
    if literal is not None:
        return NameServer(literal)
    if ":" in text:
        host, _, port = text.rpartition(":")
        if host == "":
            raise AddressError("the address before the port is missing", f"127.0.0.1:{port}")
        return NameServer(_host(host), _port(port))
    return NameServer(_host(text))


def parse_host(text: str) -> Host:
    """A name or an address without a port; IPv6 with or without brackets."""
    _refuse_common_mistakes(text, "a name as a.example, or an address")
    if text.startswith("["):
        return _bracketed(text)
    return _host(text)


def parse_interface(text: str) -> InterfaceName:
    """The name of a network device; whether it exists is known only when sockets are bound."""
    if text == "":
        raise AddressError("empty", "the name of a network device, as eth0")
    return InterfaceName(text)


def _refuse_common_mistakes(text: str, shape: str) -> None:
    if text == "":
        raise AddressError("empty", shape)
    if len(text) > _LONGEST:
        raise AddressError(f"{len(text)} characters are too long for an address", shape)
    if text != text.strip():
        raise AddressError("blanks around the address", text.strip() or shape)
    scheme = _SCHEME.match(text)
    if scheme is not None:
        rest = text[scheme.end() :].split("/", 1)[0]
        raise AddressError("a URL, not an address", rest or shape)
    if "/" in text:
        raise AddressError("an address has no slash", shape)


def _split(text: str, shape: str) -> tuple[str, str]:
    """At the last colon, which is where the port begins."""
    _refuse_common_mistakes(text, shape)
    host, colon, ports = text.rpartition(":")
    if not colon or ports.endswith("]"):
        # "[::1]" has colons but no port; its last colon is inside the brackets.
        raise AddressError("no port", shape)
    if ports == "":
        raise AddressError("no port after the colon", shape)
    if ":" in host and not host.startswith("[") and _literal(host) is None and _literal(text):
        raise AddressError("an IPv6 address without a port", f"[{text}]:443")
    return host, ports


def _ports(text: str) -> PortRange:
    first, dash, last = text.partition("-")
    if not dash:
        port = _port(first)
        return PortRange(port, port)
    return PortRange(_port(first), _port(last))


def _port(text: str) -> int:
    if not _DIGITS.fullmatch(text) or not text.isascii():
        raise AddressError(f'"{text}" is not a port', "a number from 0 to 65535")
    port = int(text)
    if port > HIGHEST_PORT:
        raise AddressError(f"port {port} is too high", "the highest port is 65535")
    return port


def _host(text: str) -> Host:
    if text.startswith("[") or text.endswith("]"):
        return _bracketed(text)
    literal = _literal(text)
    if literal is not None:
        return literal
    if ":" in text:
        raise AddressError(
            f'"{text}" is not an IPv6 address', "IPv6 addresses are written [2001:db8::1]:443"
        )
    if _NUMERIC.fullmatch(text):
        raise AddressError(f'"{text}" is not an IPv4 address', "four numbers, as 192.0.2.7")
    return HostName(_ascii_name(text))


def _literal(text: str) -> IPv4Address | IPv6Address | None:
    if ":" in text:
        try:
            return _scoped(IPv6Address(text))
        except AddressValueError:
            return None
    # Most texts here are names: asking ipaddress about each costs more than all the rest.
    if not text[:1].isdigit():
        return None
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


def _scoped(address: IPv6Address) -> IPv6Address:
    scope = address.scope_id
    if scope is not None and not scope.isdecimal():
        parse_interface(scope)
    return address


def _bracketed(text: str) -> IPv6Address:
    if not (text.startswith("[") and text.endswith("]")):
        raise AddressError("a bracket without its other half", "[2001:db8::1]:443")
    inside = text[1:-1]
    try:
        return _scoped(IPv6Address(inside))
    except AddressValueError:
        hint = "names and IPv4 addresses are written without brackets"
        raise AddressError(f'"{inside}" is not an IPv6 address', hint) from None


def _ascii_name(text: str) -> str:
    """Names in other scripts travel as punycode."""
    if text.isascii():
        return text
    try:
        return text.encode("idna").decode("ascii")
    except UnicodeError:
        _refuse_name(text)


def _check_name(name: str) -> None:
    labels = name.removesuffix(".").split(".")
    # fullmatch on ASCII classes also refuses every other script.
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        _refuse_name(name)
    if _NUMERIC.fullmatch(labels[-1]):
        raise AddressError(
            f'"{name}" is neither a host name nor an IP address',
            "the last part of a name is not a number",
        )


def _refuse_name(name: str) -> NoReturn:
    raise AddressError(
        f'"{name}" is not a host name',
        "letters, digits, - and _ in parts of at most 63 characters, joined by dots",
    )
