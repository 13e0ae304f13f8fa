"""Small messages: how many round trips of 64 bytes over 32 connections, and what does one cost?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import generator
from benchmarks.peers import Peer
from benchmarks.question import Question, Ratio, Sample, Series, Setting
from benchmarks.relayed import site

__all__ = ["QUESTION"]

CONNECTIONS = 32
SIZE = 64

_RATE = "ping-pong: rate"
_CPU = "ping-pong: CPU per round trip"
_P99 = "ping-pong: p99"


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    with site(peer, "echo") as here:

        def sample() -> dict[str, float]:
            result, cpu = here.cost(
                lambda: generator.client(
                    "ping-pong",
                    here.address("echo"),
                    connections=CONNECTIONS,
                    size=SIZE,
                    seconds=setting.seconds,
                    warm_up=setting.warm_up,
                )
            )
            values = {_RATE: result["rate"] / 1e3, _P99: result["latency"]["p99"]}
            if here.relaying.roots:
                values[_CPU] = cpu / result["total"] * 1e6
            return values

        yield sample


QUESTION = Question(
    name="pingpong",
    text=__doc__,
    series=(
        Series(_RATE, "thousand/s", "more", 1),
        Series(_CPU, "µs", "less", 2),
        Series(_P99, "µs", "less", 0),
    ),
    bars=(Ratio(_RATE, 1.0, ("nginx", "haproxy")), Ratio(_CPU, 1.0, ("nginx", "haproxy"))),
    peers=("qanat", "nginx", "haproxy", "socat", "direct"),
    open=_open,
)
