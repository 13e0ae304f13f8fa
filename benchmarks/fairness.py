"""Fairness: how long do small messages take while 8 bulk flows run through the same relay?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import generator
from benchmarks.failure import BenchmarkError
from benchmarks.peers import Peer
from benchmarks.question import Question, Ratio, Sample, Series, Setting
from benchmarks.relayed import site

__all__ = ["QUESTION"]

PINGS = 8
BULKS = 8

_P50 = "beside 8 bulk flows: ping-pong p50"
_P99 = "beside 8 bulk flows: ping-pong p99"
_BULK = "beside ping-pong: bulk rate"


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    with site(peer, "echo", "discard") as here:

        def sample() -> dict[str, float]:
            bulk = generator.start_client(
                "bulk",
                here.address("discard"),
                direction="up",
                connections=BULKS,
                # Around the ping-pong on both sides, so that every round trip meets the bulk.
                seconds=setting.seconds + setting.warm_up + 0.6,
                warm_up=0.2,
            )
            try:
                ping = generator.client(
                    "ping-pong",
                    here.address("echo"),
                    connections=PINGS,
                    size=64,
                    seconds=setting.seconds,
                    warm_up=setting.warm_up + 0.2,
                )
            except BenchmarkError:
                bulk.stop()
                raise
            return {
                _P50: ping["latency"]["p50"],
                _P99: ping["latency"]["p99"],
                _BULK: bulk.result()["rate"] / 1e9,
            }

        yield sample


QUESTION = Question(
    name="fairness",
    text=__doc__,
    series=(
        Series(_P50, "µs", "less", 0),
        Series(_P99, "µs", "less", 0),
        Series(_BULK, "GB/s", "more", 2),
    ),
    bars=(Ratio(_P99, 2.0, ("haproxy",)),),
    peers=("qanat", "nginx", "haproxy", "direct"),
    open=_open,
)
