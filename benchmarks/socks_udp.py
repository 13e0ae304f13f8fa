"""UDP through a SOCKS5 association, at a steady rate: what does a datagram cost beside the plain
relay, and is any lost?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks import generator, measure
from benchmarks.failure import BenchmarkError
from benchmarks.peers import Peer, Qanat
from benchmarks.proxies import ours
from benchmarks.question import Absolute, Question, Sample, Series, Setting
from benchmarks.relayed import site

__all__ = ["QUESTION"]

_RATE: Final = 100_000
_SIZE: Final = 1_200
_FLOWS: Final = 4
_PLAIN: Final = "UDP, plain relay: CPU per packet"
_SOCKS: Final = "UDP through SOCKS5: CPU per packet"
_SHARE: Final = "UDP through SOCKS5: CPU against the plain relay"
_LOST: Final = "UDP through SOCKS5: lost"


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    assert isinstance(peer, Qanat)
    with site(peer, "udp-sink") as here, ours(peer, "socks5") as (port, pid):
        sink = here.targets["udp-sink"]

        def blast(to: str, **way: object) -> dict[str, float]:
            result = generator.client(
                "udp-blast",
                to,
                sink=sink,
                rate=_RATE,
                size=_SIZE,
                flows=_FLOWS,
                seconds=setting.seconds,
                warm_up=setting.warm_up,
                **way,
            )
            if not result["received"]:
                raise BenchmarkError("nothing came through")
            return result

        def sample() -> dict[str, float]:
            plain, cost = here.cost(lambda: blast(here.address("udp-sink")))
            before = measure.cpu_seconds(pid)
            socks = blast(sink, socks=f"127.0.0.1:{port}")
            of_socks = measure.cpu_seconds(pid) - before
            each = {
                _PLAIN: cost / plain["received"] * 1e6,
                _SOCKS: of_socks / socks["received"] * 1e6,
            }
            share = each[_SOCKS] / each[_PLAIN]
            return {**each, _SHARE: share, _LOST: socks["lost"] / socks["sent"] * 100}

        yield sample


QUESTION = Question(
    name="socks_udp",
    text=__doc__,
    series=(
        Series(_SHARE, "", "less", 2),
        Series(_SOCKS, "µs", "less", 2),
        Series(_PLAIN, "µs", "less", 2),
        Series(_LOST, "%", "less", 3),
    ),
    bars=(Absolute(_LOST, 0.0),),
    peers=("qanat",),
    open=_open,
)
