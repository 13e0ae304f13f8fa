"""Looking names up: the system's resolver in a few threads, with a short memory in front of it.

The system does not tell how long an answer is good for, so it is kept for a short time. Whoever
asks for a name that is being looked up waits for the same answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from qanat.stack.address import check_host
from qanat.stack.errors import ConnectError, Kind, LimitReached
from qanat.stack.threads import Threads

__all__ = ["Resolver"]

Found = tuple[str, ...]
Lookup = Callable[[str], Sequence[str]]

_AGAIN: Final = frozenset({socket.EAI_AGAIN, socket.EAI_MEMORY, socket.EAI_SYSTEM})
_MOST_ADDRESSES: Final = 32
"""Of one name. Nobody tries more, and an answer may hold thousands."""


class Resolver:
    """From a name to addresses, families interleaved (RFC 8305 section 4).

    ``overrides``: a name, or ``*.suffix``, to one address or several. ``lookup`` blocks and gives
    addresses or raises OSError; it is called in a thread. One resolver serves one event loop.
    """

    def __init__(
        self,
        overrides: Mapping[str, str | Sequence[str]] | None = None,
        *,
        ttl: float = 30.0,
        negative_ttl: float = 3.0,
        names: int = 4096,
        threads: int = 16,
        waiting: int = 1024,
        timeout: float = 10.0,
        lookup: Lookup | None = None,
    ) -> None:
        self._exact: dict[str, Found] = {}
        self._below: dict[str, Found] = {}
        for name, given in (overrides or {}).items():
            addresses = (given,) if isinstance(given, str) else tuple(given)
            key = name.lower().rstrip(".")
            for address in addresses:
                if not _is_literal(address):
                    raise ValueError(f"{name}: {address!r} is no address")
            if key.startswith("*."):
                self._below[key[2:]] = addresses
            else:
                self._exact[key] = addresses
        self._ttl = ttl
        self._negative_ttl = negative_ttl
        self._names = names
        self._timeout = timeout
        self._lookup = lookup or system_lookup
        self._threads = Threads("resolver", threads, waiting)
        self._known: OrderedDict[str, tuple[float, Found | ConnectError]] = OrderedDict()
        self._asked: dict[str, asyncio.Task[Found | ConnectError]] = {}

    def known(self, host: str) -> Found | None:
        """Without waiting, where that is possible. :raises ConnectError: it is known not to be."""
        if _is_literal(host):
            return (host,)
        name = host.lower().rstrip(".")
        found = self._overridden(name)
        if found is not None:
            return found
        if name == "localhost" or name.endswith(".localhost"):
            # RFC 6761 section 6.3: never asked of others.
            return ("127.0.0.1", "::1")
        entry = self._known.get(name)
        if entry is None or entry[0] <= asyncio.get_running_loop().time():
            return None
        if isinstance(entry[1], ConnectError):
            raise _again(entry[1])
        return entry[1]

    async def addresses(self, host: str) -> Found:
        """:raises ConnectError: there are none, or the answer takes too long."""
        found = self.known(host)
        if found is not None:
            return found
        name = host.lower().rstrip(".")
        try:
            check_host(host, host)
        except ValueError as error:
            raise ConnectError(str(error), kind="dns", target=host) from None
        asked = self._asked.get(name)
        if asked is None or asked.done():
            asked = asyncio.get_running_loop().create_task(self._ask(name), name=f"lookup {name}")
            if not asked.done():
                self._asked[name] = asked
        # Others may wait for the same answer: who is cancelled does not take it from them.
        answer = await asyncio.shield(asked)
        if isinstance(answer, ConnectError):
            raise _again(answer)
        return answer

    def _overridden(self, name: str) -> Found | None:
        found = self._exact.get(name)
        if found is not None or not self._below:
            return found
        rest = name
        while "." in rest:
            _, _, rest = rest.partition(".")
            found = self._below.get(rest)
            if found is not None:
                return found
        return None

    async def _ask(self, name: str) -> Found | ConnectError:
        loop = asyncio.get_running_loop()
        answer: Found | ConnectError
        ttl = self._ttl
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._threads.run(lambda: self._lookup(name))
            answer = _interleaved(found)
            if not answer:
                answer = ConnectError(f"{name} has no address", kind="dns", target=name)
        except TimeoutError:
            text = f"{name}: no answer from the resolver in {self._timeout:g} s"
            answer = ConnectError(text, kind="dns", target=name)
        except LimitReached:
            answer = ConnectError(
                f"{name}: too many lookups wait", kind="limit", domain="local", target=name
            )
            ttl = 0.0
        except OSError as error:
            kind: Kind = "dns"
            answer = ConnectError(
                f"{name}: {error.strerror or error}", kind=kind, domain="transport", target=name
            )
            if error.errno in _AGAIN:
                ttl = 0.0
        finally:
            self._asked.pop(name, None)
        if isinstance(answer, ConnectError):
            ttl = min(ttl, self._negative_ttl)
        if ttl > 0:
            self._known[name] = (loop.time() + ttl, answer)
            self._known.move_to_end(name)
            while len(self._known) > self._names:
                self._known.popitem(last=False)
        return answer

    async def aclose(self) -> None:
        """End lookups that nobody waits for any more."""
        asked = [task for task in self._asked.values() if not task.done()]
        for task in asked:
            task.cancel()
        if asked:
            await asyncio.wait(asked, timeout=1.0)

    def __repr__(self) -> str:
        return f"Resolver(overrides={len(self._exact) + len(self._below)}, ttl={self._ttl:g})"


def system_lookup(name: str) -> list[str]:
    """What the system's resolver says, in its order (RFC 6724)."""
    answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    found = []
    for family, _, _, _, where in answers:
        host = str(where[0])
        if family == socket.AF_INET6 and len(where) == 4 and where[3] and "%" not in host:
            host = f"{host}%{where[3]}"
        found.append(host)
    return found


def _interleaved(found: Sequence[str]) -> Found:
    unique = list(dict.fromkeys(found))[: 4 * _MOST_ADDRESSES]
    if not unique:
        return ()
    first_is_six = ":" in unique[0]
    first = [one for one in unique if (":" in one) == first_is_six]
    second = [one for one in unique if (":" in one) != first_is_six]
    mixed = []
    for place in range(max(len(first), len(second))):
        mixed += first[place : place + 1] + second[place : place + 1]
    return tuple(mixed[:_MOST_ADDRESSES])


def _is_literal(host: str) -> bool:
    host, _, _ = host.partition("%")
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except (OSError, ValueError):
        return False
    return True


def _again(error: ConnectError) -> ConnectError:
    """A new one for each that asked: an error collects the trace of where it was raised."""
    return ConnectError(str(error), kind=error.kind, domain=error.domain, target=error.target)
