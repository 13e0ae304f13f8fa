"""Services that look at a client's first bytes and choose who serves it, or what becomes of its
bridge. Nothing is taken: whoever is chosen reads from the beginning."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from qanat.stack.bridge import Bridge
from qanat.stack.codec.client_hello import LONGEST_HELLO, ClientHello, parse_client_hello
from qanat.stack.codec.verdict import NEED_MORE, NeedMore
from qanat.stack.errors import LocalProtocolError, PhaseTimeout, RemoteProtocolError, StackError
from qanat.stack.phases import within
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream

__all__ = ["HTTP", "SOCKS4", "SOCKS5", "SSH", "TLS", "Peek", "PeekRoute", "Sign", "SniRoute"]

Out = TypeVar("Out")
T = TypeVar("T")

_MOST: Final = 64
"""Bytes by which a sign has to be known."""
_NOT_HTTP: Final = (b"PING ", b"EHLO ", b"HELO ", b"USER ", b"NICK ", b"SSH-", b"PROXY ")
"""Beginnings that look like a method and are none."""
_LONGEST_METHOD: Final = 20


@dataclass(frozen=True, slots=True)
class Sign:
    """How a protocol is known by its first bytes; ``look`` may ask for more of them."""

    name: str
    look: Callable[[bytes], bool | NeedMore]

    def __repr__(self) -> str:
        return self.name


def _begins(prefix: bytes) -> Callable[[bytes], bool | NeedMore]:
    def look(seen: bytes) -> bool | NeedMore:
        if len(seen) < len(prefix) and prefix.startswith(seen):
            return NEED_MORE
        return seen.startswith(prefix)

    return look


def _looks_like_http(seen: bytes) -> bool | NeedMore:
    method, space, _ = seen.partition(b" ")
    if not method.isalpha() or not method.isupper() or len(method) > _LONGEST_METHOD:
        return False
    if any(other.startswith(seen) and len(seen) < len(other) for other in _NOT_HTTP):
        return NEED_MORE
    if seen.startswith(_NOT_HTTP):
        return False
    return True if space else NEED_MORE


def _looks_like_tls(seen: bytes) -> bool | NeedMore:
    if seen[:1] != b"\x16" or seen[1:2] not in (b"", b"\x03"):
        return False
    return True if len(seen) >= 2 else NEED_MORE


SOCKS4: Final = Sign("SOCKS4", _begins(b"\x04"))
"""SOCKS4 and 4a."""
SOCKS5: Final = Sign("SOCKS5", _begins(b"\x05"))
"""SOCKS5, by its version."""
TLS: Final = Sign("TLS", _looks_like_tls)
"""A TLS handshake."""
HTTP: Final = Sign("HTTP", _looks_like_http)
"""A request of HTTP/1, by its method."""
SSH: Final = Sign("SSH", _begins(b"SSH-"))
"""SSH, by its banner."""


@dataclass(frozen=True, slots=True)
class Peek(Generic[Out]):
    """``Peek({TLS: secure, HTTP: web}, fallback=Reject())``: the first sign that fits chooses.

    Who says nothing within ``timeout`` gets the fallback, since in some protocols the server speaks
    first; without a fallback that, and bytes that fit nothing, are mistakes of the client.
    """

    routes: Mapping[Sign, Service[Stream, Out]]
    fallback: Service[Stream, Out] | None = None
    timeout: float | None = 10.0

    async def __call__(self, stream: Stream, /) -> Out:
        chosen = await _look(stream, self._choose, _MOST, self.timeout, self.fallback is not None)
        service = chosen or self.fallback
        if service is None:
            known = ", ".join(sign.name for sign in self.routes)
            raise RemoteProtocolError(f"the client speaks none of {known}")
        return await service(stream)

    def _choose(self, seen: bytes) -> Service[Stream, Out] | NeedMore | None:
        return _fitting(self.routes, seen)


@dataclass(frozen=True, slots=True)
class PeekRoute(Generic[Out]):
    """The same for a bridge, once both sides are connected: ``then=PeekRoute({TLS: inspect},
    fallback=relay)``. The first sign that fits what the client says chooses.

    The fallback is for everything else: for clients that say nothing within ``timeout``, and at
    once where the server speaks first, who shall not wait for that.
    """

    routes: Mapping[Sign, Service[Bridge, Out]]
    fallback: Service[Bridge, Out]
    timeout: float | None = 2.0

    async def __call__(self, bridge: Bridge, /) -> Out:
        return await (await self._chosen(bridge) or self.fallback)(bridge)

    async def _chosen(self, bridge: Bridge) -> Service[Bridge, Out] | None:
        loop = asyncio.get_running_loop()
        looking = loop.create_task(
            _look(bridge.client, self._choose, _MOST, self.timeout, may_be_silent=True)
        )
        hearing = loop.create_task(_speaks(bridge.upstream))
        tasks: set[asyncio.Task[Any]] = {looking, hearing}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return looking.result() if looking.done() else None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _choose(self, seen: bytes) -> Service[Bridge, Out] | NeedMore | None:
        return _fitting(self.routes, seen)


async def _speaks(stream: Stream) -> None:
    """Until it does, or has ended."""
    with suppress(StackError):
        await stream.peek()


def _fitting(routes: Mapping[Sign, T], seen: bytes) -> T | NeedMore | None:
    for sign, service in routes.items():
        verdict = sign.look(seen)
        if verdict is NEED_MORE:
            return NEED_MORE
        if verdict:
            return service
    return None


@dataclass(frozen=True, slots=True)
class SniRoute(Generic[Out]):
    """``SniRoute({"www.example.com": web, "*.example.com": others}, default=web)``: by the name in
    the ClientHello, which stays whole and encrypted.

    A pattern with a star stands for all names below; the most exact one counts. The default is for
    clients that name nobody else, that speak no TLS, or that say nothing in time; without one they
    are refused. What the hello told is in the extensions as :class:`~qanat.stack.ClientHello`.
    """

    routes: Mapping[str, Service[Stream, Out]]
    default: Service[Stream, Out] | None = None
    timeout: float | None = 10.0
    _table: dict[str, Service[Stream, Out]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        table: dict[str, Service[Stream, Out]] = {}
        for pattern, service in self.routes.items():
            name = pattern.lower().removesuffix(".")
            bare = name.removeprefix("*.")
            if not bare or "*" in bare or bare.startswith("."):
                raise LocalProtocolError(
                    f"{pattern!r} is no name and no pattern: www.example.com or *.example.com"
                )
            table[name] = service
        object.__setattr__(self, "_table", table)

    async def __call__(self, stream: Stream, /) -> Out:
        may_be_silent = self.default is not None
        hello = await _look(stream, self._read, LONGEST_HELLO, self.timeout, may_be_silent)
        service = self.default
        if hello is not None:
            stream.ext.insert(hello)
            service = self.chosen(hello.server_name) or service
        if service is None:
            name = hello.server_name if hello is not None else None
            raise RemoteProtocolError(
                f"nobody serves {name}" if name else "the client asks for no server by name"
            )
        return await service(stream)

    def chosen(self, name: str | None) -> Service[Stream, Out] | None:
        """Who serves that name, the default aside."""
        if name is None:
            return None
        found = self._table.get(name)
        rest = name
        while found is None and "." in rest:
            rest = rest.partition(".")[2]
            found = self._table.get(f"*.{rest}")
        return found

    def _read(self, seen: bytes) -> ClientHello | NeedMore | None:
        try:
            parsed = parse_client_hello(seen)
        except RemoteProtocolError:
            if self.default is None:
                raise
            return None
        return NEED_MORE if isinstance(parsed, NeedMore) else parsed.value


async def _look(
    stream: Stream,
    judge: Callable[[bytes], T | NeedMore | None],
    most: int,
    seconds: float | None,
    may_be_silent: bool,
) -> T | None:
    """What ``judge`` makes of the first bytes, shown whenever there are more of them; None when
    there won't be enough."""
    seen = b""
    try:
        async with within(seconds, "first-bytes"):
            while True:
                before, seen = seen, await stream.peek(len(seen), most)
                if len(seen) == len(before):
                    return None
                judged = judge(seen)
                if not isinstance(judged, NeedMore):
                    return judged
    except PhaseTimeout:
        if may_be_silent:
            return None
        raise
