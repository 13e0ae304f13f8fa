"""Which addresses may be dialled on behalf of clients.

Decided on the addresses that a name was resolved to, and only those that passed go on to the
connector: a name can't be asked twice with two answers. IPv4 inside of IPv6 is looked at as IPv4,
too.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, Generic, Literal, TypeVar

from qanat.stack.address import Address
from qanat.stack.connect.target import ConnectTo
from qanat.stack.errors import ConnectError
from qanat.stack.facts import Client, Peer
from qanat.stack.networks import Ip, NetworkSet
from qanat.stack.service import Service

__all__ = ["PRIVATE", "Guard", "reach"]

Out = TypeVar("Out")
Reach = Literal["public", "private", "this machine"]

PRIVATE: Final = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "192.0.0.0/24",
    "198.18.0.0/15",
    "fc00::/7",
    "fec0::/10",
    "64:ff9b:1::/48",
)
"""Networks of companies, homes, carriers and laboratories (RFC 1918, 6598, 6890, 4193, 8215)."""

NEVER: Final = (
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/3",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "::/128",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
)
"""This machine and its link: loopback, unspecified, link-local, multicast and reserved addresses,
and where clouds tell machines their secrets."""

_PRIVATE: Final = NetworkSet(PRIVATE)
_NEVER: Final = NetworkSet(NEVER)
_COMPATIBLE: Final = IPv6Network("::/96")
_NAT64: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})


def _forms(ip: Ip) -> list[Ip]:
    """The address, and the IPv4 addresses that packets to it may end at."""
    forms: list[Ip] = [ip]
    if isinstance(ip, IPv4Address):
        return forms
    number = int(ip)
    last = IPv4Address(number & 0xFFFFFFFF)
    if ip.ipv4_mapped is not None:
        # It is IPv4, and nothing else.
        return [ip.ipv4_mapped]
    if ip.sixtofour is not None:
        forms.append(ip.sixtofour)
    if ip.teredo is not None:
        forms += ip.teredo
    embeds = any(ip in network for network in _NAT64) or (ip in _COMPATIBLE and number > 1)
    if embeds or (number >> 32) & 0xFFFFFFFF in _ISATAP:
        forms.append(last)
    return forms


@lru_cache(maxsize=4096)
def reach(host: str) -> Reach:
    """How far an address literal reaches. ValueError if it is none."""
    forms = _forms(ip_address(host.partition("%")[0]))
    if any(form in _NEVER for form in forms):
        return "this machine"
    if any(form in _PRIVATE for form in forms):
        return "private"
    return "public"


@lru_cache(maxsize=4096)
def _within(host: str, networks: tuple[str, ...]) -> bool:
    forms = _forms(ip_address(host.partition("%")[0]))
    given = NetworkSet(networks)
    return any(form in given for form in forms)


def _nothing() -> Iterable[Address]:
    return ()


@dataclass(frozen=True, slots=True)
class Guard:
    """A layer of connectors, and of everything else that asks by :class:`ConnectTo`.

    As it is, clients on loopback may go anywhere; others not to loopback, link-local and metadata
    addresses, not to our own listeners, and to private networks only with ``private=True``. Who
    the client is, is known by the facts Client and Peer; without any it is not on loopback.

    A name that nobody looked up passes, unless it means this machine: another proxy resolves it
    then, and the guard of that one decides.
    """

    private: bool = False
    own: Callable[[], Iterable[Address]] = field(default=_nothing, repr=False)
    """Where we listen ourselves, wildcards as they are."""
    loopback_anywhere: bool = True
    allow: tuple[str, ...] = ()
    """Networks that may be reached whatever else is said here, apart from our own listeners."""
    deny: tuple[str, ...] = ()
    """Networks that are denied besides, to clients on loopback, too."""

    def __post_init__(self) -> None:
        for network in (*self.allow, *self.deny):
            ip_network(network)

    def __call__(self, inner: Service[ConnectTo, Out], /) -> Service[ConnectTo, Out]:
        return _Guarded(self, inner)

    def objection(self, candidate: Address, *, from_loopback: bool) -> str | None:
        """Why an address may not be dialled; None if it may."""
        host = candidate.host
        if self.deny and _within(host, self.deny):
            return "is in a denied network"
        if from_loopback and self.loopback_anywhere:
            return None
        if self._is_own(candidate):
            return "is this proxy itself"
        if self.allow and _within(host, self.allow):
            return None
        found = reach(host)
        if found == "this machine":
            return "is this machine, its link or where clouds keep secrets"
        if found == "private" and not self.private:
            return "is in a private network"
        return None

    def _is_own(self, candidate: Address) -> bool:
        for listener in self.own():
            if listener.port != candidate.port:
                continue
            ours, theirs = listener.ip, candidate.ip
            if theirs is None or ours is None:
                continue
            forms = _forms(theirs)
            if ours.is_unspecified:
                if any(form.is_loopback or _is_local(form) for form in forms):
                    return True
            elif any(form in forms for form in _forms(ours)):
                return True
        return False


@dataclass(frozen=True, slots=True)
class _Guarded(Generic[Out]):
    guard: Guard
    inner: Service[ConnectTo, Out]

    def __call__(self, asked: ConnectTo, /) -> Awaitable[Out]:
        guard, target = self.guard, asked.target
        source = asked.ext.get(Client) or asked.ext.get(Peer)
        from_loopback = source is not None and _on_loopback(source.address.host)
        candidates = asked.candidates
        if candidates is None:
            if target.ip is None:
                name = target.host.lower().rstrip(".")
                local = name == "localhost" or name.endswith(".localhost")
                if local and not (from_loopback and guard.loopback_anywhere):
                    raise _denied(target, "is this machine")
                return self.inner(asked)
            candidates = (target,)
        allowed = []
        why = "has no address"
        for candidate in candidates:
            objection = guard.objection(candidate, from_loopback=from_loopback)
            if objection is None:
                allowed.append(candidate)
            else:
                why = objection
        if not allowed:
            raise _denied(target, why)
        if asked.candidates is not None and len(allowed) == len(candidates):
            return self.inner(asked)
        return self.inner(ConnectTo(target, asked.ext, tuple(allowed)))


def _denied(target: Address, why: str) -> ConnectError:
    return ConnectError(
        f"{target} {why}: not allowed", kind="denied", domain="local", target=str(target)
    )


@lru_cache(maxsize=4096)
def _on_loopback(host: str) -> bool:
    try:
        ip = ip_address(host)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_loopback


def _is_local(ip: IPv4Address | IPv6Address) -> bool:
    """Whether it is an address of this machine: packets to one come from the same address."""
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            # No packet is sent by this.
            sock.connect((str(ip), 9))
            ours = str(sock.getsockname()[0])
    except OSError:
        return False
    return ours.partition("%")[0] == str(ip).partition("%")[0]
