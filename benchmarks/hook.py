"""Short connections, each decided by a trivial hook in Python: how many does one core carry in a
second, and how many a second come through one after the other?"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import generator
from benchmarks.peers import Peer, Qanat
from benchmarks.question import Absolute, Question, Sample, Series, Setting
from benchmarks.relayed import Site, site

__all__ = ["QUESTION"]

_PLAIN = "hook, plain function: connections per second of CPU"
_COROUTINE = "hook, coroutine: connections per second of CPU"
_PLAIN_RATE = "hook, plain function: rate one after the other"
_COROUTINE_RATE = "hook, coroutine: rate one after the other"
_WITHOUT = "without a hook: rate one after the other"

_HOOKS = """\
def decide(arrival):
    return arrival.client_port > 0


async def decide_later(arrival):
    return arrival.client_port > 0
"""


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    assert isinstance(peer, Qanat)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "hooks.py")
        file.write_text(_HOOKS)
        plain = dataclasses.replace(peer, hook=f"{file}:decide")
        coroutine = dataclasses.replace(peer, hook=f"{file}:decide_later")
        with site(peer, "echo") as none, site(plain, "echo") as one, site(coroutine, "echo") as two:

            def measure(here: Site) -> tuple[float, float]:
                """Connections per second of the relay's CPU, and their rate."""
                result, cpu = here.cost(
                    lambda: generator.client(
                        "connect",
                        here.address("echo"),
                        size=64,
                        seconds=setting.seconds,
                        warm_up=setting.warm_up,
                    )
                )
                return result["total"] / cpu, result["rate"]

            def sample() -> dict[str, float]:
                plain, plain_rate = measure(one)
                coroutine, coroutine_rate = measure(two)
                return {
                    _PLAIN: plain,
                    _COROUTINE: coroutine,
                    _PLAIN_RATE: plain_rate,
                    _COROUTINE_RATE: coroutine_rate,
                    _WITHOUT: measure(none)[1],
                }

            yield sample


QUESTION = Question(
    name="hook",
    text=__doc__,
    series=(
        Series(_PLAIN, "1/s", "more", 0),
        Series(_COROUTINE, "1/s", "more", 0),
        Series(_PLAIN_RATE, "1/s", "more", 0),
        Series(_COROUTINE_RATE, "1/s", "more", 0),
        Series(_WITHOUT, "1/s", "more", 0),
    ),
    bars=(Absolute(_PLAIN, 2_000), Absolute(_COROUTINE, 2_000)),
    peers=("qanat",),
    open=_open,
)
