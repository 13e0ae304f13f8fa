"""Predicates about a connection or a target, and the service that chooses by them.

A matcher looks at facts that layers above have put into the extensions; a fact that is not there
matches nothing. They are combined by ``&``, ``|`` and ``~``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar
from urllib.parse import unquote

from qanat.stack.address import Address
from qanat.stack.codec.client_hello import ClientHello
from qanat.stack.codec.http1 import RequestHead
from qanat.stack.connect.target import ConnectTo
from qanat.stack.domains import DomainSet
from qanat.stack.errors import Denied, LocalProtocolError
from qanat.stack.extensions import Extensions
from qanat.stack.facts import Client, Peer, Target, Tls, User
from qanat.stack.networks import NetworkSet
from qanat.stack.service import Service

__all__ = [
    "Alpn",
    "Clients",
    "Domains",
    "HttpHost",
    "HttpMethod",
    "HttpPath",
    "Matcher",
    "Networks",
    "PathParameters",
    "Ports",
    "Route",
    "Sni",
    "Users",
]

Out = TypeVar("Out")
_LARGEST_PORT: Final = 65535


class Knowing(Protocol):
    """What layers learn things about: a stream, or what a connector is asked for."""

    @property
    def ext(self) -> Extensions: ...


In = TypeVar("In", bound=Knowing)


class Matcher(ABC):
    """``matcher(stream)`` is a plain question. One of your own has :meth:`look` alone."""

    __slots__ = ()

    @abstractmethod
    def look(self, asked: Knowing, learned: Extensions) -> bool:
        """What is found out on the way goes into ``learned``, which counts only on a match."""

    def __call__(self, asked: Knowing, /) -> bool:
        return self.look(asked, Extensions())

    def __and__(self, other: Matcher) -> Matcher:
        return _All(self, other)

    def __or__(self, other: Matcher) -> Matcher:
        return _Any(self, other)

    def __invert__(self) -> Matcher:
        return _Not(self)


@dataclass(frozen=True, repr=False)
class _All(Matcher):
    one: Matcher
    other: Matcher

    def look(self, asked: Knowing, learned: Extensions) -> bool:
        return self.one.look(asked, learned) and self.other.look(asked, learned)

    def __repr__(self) -> str:
        return f"({self.one!r} & {self.other!r})"


@dataclass(frozen=True, repr=False)
class _Any(Matcher):
    one: Matcher
    other: Matcher

    def look(self, asked: Knowing, learned: Extensions) -> bool:
        for matcher in (self.one, self.other):
            # What one found out before it said no must not stay.
            found = Extensions()
            if matcher.look(asked, found):
                _merge(found, learned)
                return True
        return False

    def __repr__(self) -> str:
        return f"({self.one!r} | {self.other!r})"


@dataclass(frozen=True, repr=False)
class _Not(Matcher):
    one: Matcher

    def look(self, asked: Knowing, learned: Extensions) -> bool:
        return not self.one.look(asked, Extensions())

    def __repr__(self) -> str:
        return f"~{self.one!r}"


def _merge(found: Extensions, into: Extensions) -> None:
    for value in found:
        into.insert(value)


def _target(asked: Knowing) -> Address | None:
    if isinstance(asked, ConnectTo):
        return asked.target
    target = asked.ext.get(Target)
    return target.address if target is not None else None


class _OfNetworks(Matcher):
    """IPv4 in IPv6 is the IPv4 address that it stands for."""

    def __init__(self, *networks: str) -> None:
        try:
            self._networks = NetworkSet(networks)
        except ValueError as error:
            raise LocalProtocolError(f"{type(self).__name__}: {error}") from None
        self._given = networks

    def _contain(self, address: Address | None) -> bool:
        ip = address.ip if address is not None else None
        return ip is not None and ip in self._networks

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._networks == self._networks

    def __hash__(self) -> int:
        return hash(self._networks)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._given)})"


class Clients(_OfNetworks):
    """``Clients("10.0.0.0/8")``: who speaks, as a trusted PROXY header tells it."""

    def look(self, asked: Knowing, learned: Extensions) -> bool:
        who = asked.ext.get(Client) or asked.ext.get(Peer)
        return self._contain(who.address if who is not None else None)


class Networks(_OfNetworks):
    """Targets that are addresses of these networks; names are of none, before they are resolved.

    Where there are candidates, all of them must be.
    """

    def look(self, asked: Knowing, learned: Extensions) -> bool:
        if isinstance(asked, ConnectTo) and asked.candidates:
            return all(map(self._contain, asked.candidates))
        return self._contain(_target(asked))


@dataclass(frozen=True, repr=False)
class Ports(Matcher):
    """``Ports(80, 443, range(8000, 8100))`` of the target."""

    ports: tuple[int | range, ...]

    def __init__(self, *ports: int | range) -> None:
        for one in ports:
            numbers = one if isinstance(one, range) else range(one, one + 1)
            if not numbers or not (numbers[0] > 0 and numbers[-1] <= _LARGEST_PORT):
                raise LocalProtocolError(f"Ports: {one} is not between 1 and {_LARGEST_PORT}")
        object.__setattr__(self, "ports", ports)

    def look(self, asked: Knowing, learned: Extensions) -> bool:
        target = _target(asked)
        return target is not None and any(
            target.port in one if isinstance(one, range) else target.port == one
            for one in self.ports
        )

    def __repr__(self) -> str:
        return f"Ports({', '.join(map(str, self.ports))})"


class _OfDomains(Matcher):
    def __init__(self, *names: str | DomainSet) -> None:
        first, *more = names or (DomainSet(),)
        if isinstance(first, DomainSet) and not more:
            self.domains: DomainSet = first
            return
        if any(isinstance(name, DomainSet) for name in names):
            raise LocalProtocolError(f"{type(self).__name__}: names, or one DomainSet")
        self.domains = DomainSet(name for name in names if isinstance(name, str))

    def _contain(self, name: str | None) -> bool:
        return name is not None and name in self.domains

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _OfDomains) and (type(self), self.domains) == (
            type(other),
            other.domains,
        )

    def __hash__(self) -> int:
        return hash(self.domains)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.domains)[10:-1]})"


class Domains(_OfDomains):
    """``Domains("example.com", "*.example.org")``: targets of these names. The first form holds all
    names below as well, the second only those."""

    def look(self, asked: Knowing, learned: Extensions) -> bool:
        target = _target(asked)
        return self._contain(target.host if target is not None else None)


class Sni(_OfDomains):
    """The name that a TLS client asks for, from a hello that was looked at or from a handshake."""

    def look(self, asked: Knowing, learned: Extensions) -> bool:
        hello, tls = asked.ext.get(ClientHello), asked.ext.get(Tls)
        return self._contain(
            hello.server_name if hello is not None else tls.server_name if tls is not None else None
        )


class HttpHost(_OfDomains):
    """The host of the request, from its target or its ``Host`` field, without the port."""

    def look(self, asked: Knowing, learned: Extensions) -> bool:
        head = asked.ext.get(RequestHead)
        if head is None:
            return False
        authority = _authority(head)
        host = authority.partition("]")[0][1:] if authority[:1] == "[" else authority
        return self._contain(host.partition(":")[0])


@dataclass(frozen=True, repr=False)
class _Words(Matcher):
    words: frozenset[str]

    def __init__(self, *words: str) -> None:
        object.__setattr__(self, "words", frozenset(words))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(sorted(self.words))})"


class Alpn(_Words):
    """A protocol that a handshake agreed on, or that a hello offers."""

    def look(self, asked: Knowing, learned: Extensions) -> bool:
        tls, hello = asked.ext.get(Tls), asked.ext.get(ClientHello)
        if tls is not None:
            return tls.alpn in self.words
        return hello is not None and not self.words.isdisjoint(hello.alpn)


class Users(_Words):
    """Who has proven to be one of these."""

    def look(self, asked: Knowing, learned: Extensions) -> bool:
        user = asked.ext.get(User)
        return user is not None and user.name in self.words


class HttpMethod(_Words):
    """``HttpMethod("GET", "HEAD")``; methods are case-sensitive."""

    def look(self, asked: Knowing, learned: Extensions) -> bool:
        head = asked.ext.get(RequestHead)
        return head is not None and head.method.decode("latin-1") in self.words


@dataclass(frozen=True, slots=True)
class PathParameters:
    """What the braces of an :class:`HttpPath` stood for: a fact after a match."""

    values: Mapping[str, str]


@dataclass(frozen=True, repr=False)
class HttpPath(Matcher):
    """``HttpPath("/users/{name}/files/*")``: a brace stands for one part of the path, a star at the
    end for all that is left. Parts are compared after their escapes were undone."""

    pattern: str
    _parts: tuple[str, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        parts = tuple(self.pattern.split("/")[1:])
        names = [part[1:-1] for part in parts if part[:1] == "{" and part[-1:] == "}"]
        wrong = [part for part in parts[:-1] if part == "*"]
        if self.pattern[:1] != "/" or wrong or len(set(names)) < len(names) or "" in names:
            raise LocalProtocolError(f"{self.pattern!r} is no pattern: /fixed/{{name}}/*")
        object.__setattr__(self, "_parts", parts)

    def look(self, asked: Knowing, learned: Extensions) -> bool:
        head = asked.ext.get(RequestHead)
        if head is None:
            return False
        found: dict[str, str] = {}
        wanted = list(self._parts)
        given = [unquote(part) for part in _path(head).split("/")[1:]]
        if wanted[-1] == "*":
            wanted.pop()
            if len(given) <= len(wanted):
                return False
            given = given[: len(wanted)]
        if len(given) != len(wanted):
            return False
        for want, have in zip(wanted, given, strict=True):
            if want[:1] == "{" and want[-1:] == "}":
                found[want[1:-1]] = have
            elif want != have:
                return False
        if found:
            learned.insert(PathParameters(found))
        return True

    def __repr__(self) -> str:
        return f"HttpPath({self.pattern})"


def _authority(head: RequestHead) -> str:
    target = head.target.decode("latin-1")
    if head.method == b"CONNECT":
        return target
    _, found, rest = target.partition("://")
    if found:
        return rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    hosts = head.values(b"host")
    return hosts[0].decode("latin-1") if hosts else ""


def _path(head: RequestHead) -> str:
    target = head.target.decode("latin-1")
    _, found, rest = target.partition("://")
    if found:
        _, slash, path = rest.partition("/")
        target = slash + path
    return target.partition("?")[0] or "/"


@dataclass(frozen=True)
class Route(Generic[In, Out]):
    """``Route((Ports(443) & Domains("example.com"), one), (Users("john"), two), otherwise=three)``.

    The first that matches serves. What its matcher has learned is in the extensions then. Without
    ``otherwise``, who matches nothing is denied.
    """

    routes: tuple[tuple[Matcher, Service[In, Out]], ...]
    otherwise: Service[In, Out] | None

    def __init__(
        self,
        *routes: tuple[Matcher, Service[In, Out]],
        otherwise: Service[In, Out] | None = None,
    ) -> None:
        object.__setattr__(self, "routes", routes)
        object.__setattr__(self, "otherwise", otherwise)

    async def __call__(self, asked: In, /) -> Out:
        for matcher, service in self.routes:
            learned = Extensions()
            if matcher.look(asked, learned):
                _merge(learned, asked.ext)
                return await service(asked)
        if self.otherwise is None:
            raise Denied("no route matches")
        return await self.otherwise(asked)
