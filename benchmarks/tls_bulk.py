"""Bulk through a relay that terminates TLS 1.3 (AES-128-GCM): what does a gigabyte cost?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks import generator
from benchmarks.peers import Peer
from benchmarks.question import Question, Ratio, Sample, Series, Setting
from benchmarks.terminated import terminating

__all__ = ["QUESTION"]

_DIRECTIONS = ("up", "down")


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    with terminating(peer, "discard", "source") as here:

        def sample() -> dict[str, float]:
            values: dict[str, float] = {}
            for direction in _DIRECTIONS:
                load = partial(
                    generator.client,
                    "tls-bulk",
                    here.address("discard" if direction == "up" else "source"),
                    direction=direction,
                    seconds=setting.seconds,
                    warm_up=setting.warm_up,
                )
                result, cpu = here.cost(load)
                values[f"TLS bulk, {direction}: CPU"] = cpu / (result["total"] / 1e9)
                values[f"TLS bulk, {direction}: rate"] = result["rate"] / 1e9
            return values

        yield sample


QUESTION = Question(
    name="tls_bulk",
    text=__doc__,
    series=tuple(
        series
        for direction in _DIRECTIONS
        for series in (
            Series(f"TLS bulk, {direction}: CPU", "s/GB", "less", 3),
            Series(f"TLS bulk, {direction}: rate", "GB/s", "more", 2),
        )
    ),
    bars=tuple(
        Ratio(f"TLS bulk, {direction}: CPU", 1.0, ("nginx", "haproxy")) for direction in _DIRECTIONS
    ),
    peers=("qanat", "nginx", "haproxy"),
    open=_open,
)
