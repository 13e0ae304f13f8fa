"""The way most questions open a peer: targets, a relay in front of them, and its CPU over a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks import generator
from benchmarks.failure import BenchmarkError
from benchmarks.peers import Peer, Relaying

__all__ = ["Site", "site"]


@dataclass(frozen=True, slots=True)
class Site:
    relaying: Relaying
    targets: Mapping[str, str]
    """The addresses behind the relay, for what is not to pass it."""

    def address(self, role: str) -> str:
        return self.relaying.addresses[role]

    def cost(self, load: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], float]:
        """The result of a load, and the CPU seconds that the relay spent on all of it.

        The whole run counts on both sides, warm-up included: divide by the result's totals."""
        before = self.relaying.cpu_seconds()
        result = load()
        return result, self.relaying.cpu_seconds() - before


@contextmanager
def site(peer: Peer, *roles: str) -> Iterator[Site]:
    """Targets of its own for each peer, each role in a process of its own: no peer inherits
    another's closed connections, and no target waits behind another."""
    lack = peer.missing()
    if lack is not None:
        raise BenchmarkError(lack)
    addresses: dict[str, str] = {}
    with _all_targets(roles, addresses), peer.relay(addresses) as relaying:
        yield Site(relaying, addresses)


@contextmanager
def _all_targets(roles: tuple[str, ...], addresses: dict[str, str]) -> Iterator[None]:
    if not roles:
        yield
        return
    with generator.targets(roles[0]) as found:
        addresses.update(found)
        with _all_targets(roles[1:], addresses):
            yield
