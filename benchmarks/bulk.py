"""Bulk: what does a gigabyte cost, and how many go through in a second?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks import generator
from benchmarks.peers import Peer
from benchmarks.question import Question, Ratio, Sample, Series, Setting
from benchmarks.relayed import site

__all__ = ["QUESTION"]

_CASES = [(1, "up"), (1, "down"), (8, "up"), (8, "down")]


def _name(connections: int, direction: str) -> str:
    return f"bulk, {connections} connection{'s' if connections > 1 else ''}, {direction}"


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    with site(peer, "discard", "source") as here:

        def sample() -> dict[str, float]:
            values: dict[str, float] = {}
            for connections, direction in _CASES:
                load = partial(
                    generator.client,
                    "bulk",
                    here.address("discard" if direction == "up" else "source"),
                    direction=direction,
                    connections=connections,
                    seconds=setting.seconds,
                    warm_up=setting.warm_up,
                )
                result, cpu = here.cost(load)
                name = _name(connections, direction)
                if here.relaying.roots:
                    values[f"{name}: CPU"] = cpu / (result["total"] / 1e9)
                values[f"{name}: rate"] = result["rate"] / 1e9
            return values

        yield sample


QUESTION = Question(
    name="bulk",
    text=__doc__,
    series=tuple(
        series
        for case in _CASES
        for series in (
            Series(f"{_name(*case)}: CPU", "s/GB", "less", 3),
            Series(f"{_name(*case)}: rate", "GB/s", "more", 2),
        )
    ),
    bars=(
        *(Ratio(f"{_name(*case)}: CPU", 0.6, ("nginx", "haproxy")) for case in _CASES),
        *(Ratio(f"{_name(*case)}: rate", 1.2, ("nginx",)) for case in _CASES if case[0] == 1),
    ),
    peers=("qanat", "nginx", "haproxy", "socat", "direct"),
    open=_open,
)
