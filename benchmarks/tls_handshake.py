"""Full TLS 1.3 handshakes (ECDSA P-256, X25519) with a relay that terminates TLS, one after the
other, each with 64 bytes there and back: how many a second?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import generator
from benchmarks.peers import Peer
from benchmarks.question import Question, Ratio, Sample, Series, Setting
from benchmarks.terminated import terminating

__all__ = ["QUESTION"]

_RATE = "TLS handshakes: rate"
_CPU = "TLS handshakes: CPU for each"


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    with terminating(peer, "echo") as here:

        def sample() -> dict[str, float]:
            result, cpu = here.cost(
                lambda: generator.client(
                    "tls-handshakes",
                    here.address("echo"),
                    size=64,
                    seconds=setting.seconds,
                    warm_up=setting.warm_up,
                )
            )
            return {_RATE: result["rate"], _CPU: cpu / result["total"] * 1e6}

        yield sample


QUESTION = Question(
    name="tls_handshake",
    text=__doc__,
    series=(Series(_RATE, "1/s", "more", 0), Series(_CPU, "µs", "less", 1)),
    bars=(Ratio(_RATE, 1.0, ("nginx", "haproxy")),),
    peers=("qanat", "nginx", "haproxy"),
    open=_open,
)
