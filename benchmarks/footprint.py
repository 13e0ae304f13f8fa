"""Footprint: how much memory does the process take with one endpoint and nothing to do?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import generator
from benchmarks.peers import Peer
from benchmarks.question import Absolute, Question, Sample, Series, Setting
from benchmarks.relayed import site

__all__ = ["QUESTION"]

_MEMORY = "process with one endpoint: memory"
_DESCRIPTORS = "process with one endpoint: descriptors"
_THREADS = "process with one endpoint: threads"


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    def sample() -> dict[str, float]:
        with site(peer, "echo") as here:
            # Used once, so that what is made at first need is there.
            generator.client("ping-pong", here.address("echo"), seconds=0.1, warm_up=0)
            time.sleep(0.5)
            return {
                _MEMORY: here.relaying.pss_bytes() / 2**20,
                _DESCRIPTORS: here.relaying.descriptors(),
                _THREADS: here.relaying.threads(),
            }

    yield sample


QUESTION = Question(
    name="footprint",
    text=__doc__,
    series=(
        Series(_MEMORY, "MiB", "less", 1),
        Series(_DESCRIPTORS, "", "less", 0),
        Series(_THREADS, "", "less", 0),
    ),
    bars=(Absolute(_MEMORY, 60.0),),
    peers=("qanat", "nginx", "haproxy", "socat"),
    open=_open,
    warm=False,
    rounds=3,
)
