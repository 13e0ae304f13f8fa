"""Idle flows: how much memory and how many descriptors does one hold that was used and rests?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import generator
from benchmarks.failure import BenchmarkError
from benchmarks.peers import Peer, Relaying
from benchmarks.question import Absolute, Question, Sample, Series, Setting
from benchmarks.relayed import site

__all__ = ["QUESTION"]

_MEMORY = "idle flow: memory"
_DESCRIPTORS = "idle flow: descriptors"


def _settled_pss(relaying: Relaying) -> int:
    """Read until two readings half a second apart agree: freed memory goes back a little later."""
    last = relaying.pss_bytes()
    for _ in range(10):
        time.sleep(0.5)
        now = relaying.pss_bytes()
        if abs(now - last) <= 64 * 1024:
            return now
        last = now
    raise BenchmarkError("the memory of the relay does not settle")


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    # A process for each flow is heavy on the machine, and says the same with fewer.
    connections = 100 if setting.quick or peer.name == "socat" else 4_000

    def sample() -> dict[str, float]:
        # Anew each time: memory that a first crowd has left behind would make the next look cheap.
        with site(peer, "echo") as here:
            generator.client("ping-pong", here.address("echo"), seconds=0.2, warm_up=0)
            memory, descriptors = _settled_pss(here.relaying), here.relaying.descriptors()
            with generator.holding(here.address("echo"), connections):
                memory = _settled_pss(here.relaying) - memory
                descriptors = here.relaying.descriptors() - descriptors
        return {
            _MEMORY: memory / connections / 1024,
            _DESCRIPTORS: descriptors / connections,
        }

    yield sample


QUESTION = Question(
    name="idle_memory",
    text=__doc__,
    series=(Series(_MEMORY, "KiB", "less", 2), Series(_DESCRIPTORS, "", "less", 2)),
    bars=(Absolute(_MEMORY, 2.0), Absolute(_DESCRIPTORS, 2.0)),
    peers=("qanat", "nginx", "haproxy", "socat"),
    open=_open,
    warm=False,
    rounds=3,
)
