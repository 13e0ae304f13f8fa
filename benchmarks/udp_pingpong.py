"""Small datagrams: how many round trips of 200 bytes over 16 flows, and what does one cost?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import generator
from benchmarks.failure import BenchmarkError
from benchmarks.peers import Peer
from benchmarks.question import Question, Ratio, Sample, Series, Setting
from benchmarks.relayed import site

__all__ = ["QUESTION"]

FLOWS = 16
SIZE = 200

_RATE = "UDP ping-pong: rate"
_CPU = "UDP ping-pong: CPU per round trip"
_P99 = "UDP ping-pong: p99"


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    with site(peer, "udp-echo") as here:

        def sample() -> dict[str, float]:
            result, cpu = here.cost(
                lambda: generator.client(
                    "udp-ping-pong",
                    here.address("udp-echo"),
                    flows=FLOWS,
                    size=SIZE,
                    seconds=setting.seconds,
                    warm_up=setting.warm_up,
                )
            )
            if not result["count"]:
                raise BenchmarkError("nothing came back")
            values = {_RATE: result["rate"] / 1e3, _P99: result["latency"]["p99"]}
            if here.relaying.roots:
                values[_CPU] = cpu / result["total"] * 1e6
            return values

        yield sample


QUESTION = Question(
    name="udp_pingpong",
    text=__doc__,
    series=(
        Series(_RATE, "thousand/s", "more", 1),
        Series(_CPU, "µs", "less", 2),
        Series(_P99, "µs", "less", 0),
    ),
    bars=(Ratio(_RATE, 1.2, ("nginx",)),),
    peers=("qanat", "nginx", "socat", "direct"),
    open=_open,
)
