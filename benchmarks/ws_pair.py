"""Bulk through two relays with WebSocket between them: what does a gigabyte cost both together,
against the same two without, and against one relay alone?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks import generator
from benchmarks.peers import Peer, Qanat, Relaying
from benchmarks.question import Absolute, Question, Sample, Series, Setting
from benchmarks.relayed import Site, site

__all__ = ["QUESTION"]

_CASES = [(mask, way) for mask in ("zero", "random") for way in ("up", "down")]
_SERVER = {"listen_transport": "ws;host=pair.test;path=/"}


def _name(mask: str, way: str) -> str:
    return f"ws pair, {mask} mask, {way}"


def _share(mask: str, way: str) -> str:
    return f"{_name(mask, way)}: CPU of both against two plain relays"


@contextmanager
def _entry(peer: Qanat, exits: Site, transports: dict[str, str]) -> Iterator[Relaying]:
    """A relay in front of another one."""
    before = dataclasses.replace(peer, transports=transports)
    with before.relay(exits.relaying.addresses) as relaying:
        yield relaying


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    assert isinstance(peer, Qanat)
    wrapped = dataclasses.replace(peer, transports=_SERVER)
    zero = {"remote_transport": "ws;host=pair.test;path=/"}
    random = {"remote_transport": "ws;host=pair.test;path=/;mask=random"}
    with (
        site(peer, "discard", "source") as plain,
        site(wrapped, "discard", "source") as exits,
        _entry(peer, plain, {}) as plain_entry,
        _entry(peer, exits, zero) as zero_entry,
        _entry(peer, exits, random) as random_entry,
    ):

        def cost(way: str, entry: Relaying, *others: Relaying) -> float:
            relays = (entry, *others)
            load: Callable[[], dict[str, float]] = partial(
                generator.client,
                "bulk",
                entry.addresses["discard" if way == "up" else "source"],
                direction=way,
                connections=1,
                seconds=setting.seconds,
                warm_up=setting.warm_up,
            )
            before = sum(relay.cpu_seconds() for relay in relays)
            total = load()["total"]
            return (sum(relay.cpu_seconds() for relay in relays) - before) / (total / 1e9)

        def sample() -> dict[str, float]:
            values: dict[str, float] = {}
            for way in ("up", "down"):
                alone = cost(way, plain.relaying)
                both = cost(way, plain_entry, plain.relaying)
                values[f"one plain relay, {way}: CPU"] = alone
                values[f"two plain relays, {way}: CPU"] = both
                for mask, entry in (("zero", zero_entry), ("random", random_entry)):
                    spent = cost(way, entry, exits.relaying)
                    values[f"{_name(mask, way)}: CPU"] = spent
                    values[_share(mask, way)] = spent / both
            return values

        yield sample


QUESTION = Question(
    name="ws_pair",
    text=__doc__,
    series=(
        *(
            Series(f"{count} plain relay{plural}, {way}: CPU", "s/GB", "less", 3)
            for count, plural in (("one", ""), ("two", "s"))
            for way in ("up", "down")
        ),
        *(Series(f"{_name(*case)}: CPU", "s/GB", "less", 3) for case in _CASES),
        *(Series(_share(*case), "", "less", 2) for case in _CASES),
    ),
    bars=tuple(Absolute(_share(*case), 3) for case in _CASES),
    peers=("qanat",),
    open=_open,
)
