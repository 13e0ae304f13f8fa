"""UDP at a steady rate: 150,000 datagrams of 1,200 bytes a second over 4 flows: what does one cost,
and is any lost?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import generator
from benchmarks.failure import BenchmarkError
from benchmarks.peers import Peer
from benchmarks.question import Absolute, Question, Ratio, Sample, Series, Setting
from benchmarks.relayed import site

__all__ = ["QUESTION"]

RATE = 150_000
SIZE = 1_200
FLOWS = 4

_CPU = "UDP blast: CPU per packet"
_LOST = "UDP blast: lost"
_LATE = "UDP blast: out of order"


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    with site(peer, "udp-sink") as here:

        def sample() -> dict[str, float]:
            result, cpu = here.cost(
                lambda: generator.client(
                    "udp-blast",
                    here.address("udp-sink"),
                    sink=here.targets["udp-sink"],
                    rate=RATE,
                    size=SIZE,
                    flows=FLOWS,
                    seconds=setting.seconds,
                    warm_up=setting.warm_up,
                )
            )
            if not result["received"]:
                raise BenchmarkError("nothing came through")
            values = {
                _LOST: result["lost"] / result["sent"] * 100,
                _LATE: result["late"] / result["sent"] * 100,
            }
            if here.relaying.roots:
                values[_CPU] = cpu / result["received"] * 1e6
            return values

        yield sample


QUESTION = Question(
    name="udp_blast",
    text=__doc__,
    series=(
        Series(_CPU, "µs", "less", 2),
        Series(_LOST, "%", "less", 3),
        Series(_LATE, "%", "less", 3),
    ),
    bars=(Ratio(_CPU, 0.33, ("nginx",)), Absolute(_LOST, 0.0), Absolute(_LATE, 0.0)),
    peers=("qanat", "nginx", "socat", "direct"),
    open=_open,
)
