"""Short connections: connect, 64 bytes there and back, close, one after the other: how many a
second?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import generator
from benchmarks.peers import Peer
from benchmarks.question import Question, Ratio, Sample, Series, Setting
from benchmarks.relayed import site

__all__ = ["QUESTION"]

_RATE = "connect: rate"
_CPU = "connect: CPU per connection"


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    with site(peer, "echo") as here:

        def sample() -> dict[str, float]:
            result, cpu = here.cost(
                lambda: generator.client(
                    "connect",
                    here.address("echo"),
                    size=64,
                    seconds=setting.seconds,
                    warm_up=setting.warm_up,
                )
            )
            values: dict[str, float] = {_RATE: result["rate"]}
            if here.relaying.roots:
                values[_CPU] = cpu / result["total"] * 1e6
            return values

        yield sample


QUESTION = Question(
    name="connect",
    text=__doc__,
    series=(Series(_RATE, "1/s", "more", 0), Series(_CPU, "µs", "less", 1)),
    bars=(Ratio(_RATE, 1.0, ("nginx",)),),
    peers=("qanat", "nginx", "haproxy", "socat", "direct"),
    open=_open,
)
