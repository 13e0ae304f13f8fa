"""Start-up: how long until it listens, with 1 endpoint and with 2,000, and what does each take?"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.failure import BenchmarkError
from benchmarks.peers import Peer, Qanat
from benchmarks.question import Absolute, Question, Sample, Series, Setting

__all__ = ["QUESTION"]

ENDPOINTS = 2_000

_ONE = "start to listening, 1 endpoint"
_MANY = f"start to listening, {ENDPOINTS:,} endpoints TCP and UDP"
_MEMORY = "memory per endpoint"
_DESCRIPTORS = "descriptors per endpoint"
_IMPORT = "import qanat"

_IMPORT_SCRIPT = (
    "import time; start = time.perf_counter(); import qanat; print(time.perf_counter() - start)"
)


def _import_seconds(python: str) -> float:
    result = subprocess.run(
        [python, "-c", _IMPORT_SCRIPT], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise BenchmarkError(result.stderr.strip())
    return float(result.stdout)


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    # Targets are never reached here; only listening is measured.
    one = {"echo": "127.0.0.1:9"}

    def sample() -> dict[str, float]:
        values: dict[str, float] = {}
        with peer.relay(one) as relaying:
            values[_ONE] = relaying.seconds_to_listen * 1e3
        if isinstance(peer, Qanat):
            with peer.relay_many(1) as relaying:
                time.sleep(0.5)
                memory, descriptors = relaying.pss_bytes(), relaying.descriptors()
            count = 20 if setting.quick else ENDPOINTS
            with peer.relay_many(count) as relaying:
                values[_MANY] = relaying.seconds_to_listen
                time.sleep(0.5)
                values[_MEMORY] = (relaying.pss_bytes() - memory) / (count - 1) / 1024
                values[_DESCRIPTORS] = (relaying.descriptors() - descriptors) / (count - 1)
            values[_IMPORT] = _import_seconds(peer.python) * 1e3
        return values

    lack = peer.missing()
    if lack is not None:
        raise BenchmarkError(lack)
    yield sample


QUESTION = Question(
    name="start_up",
    text=__doc__,
    series=(
        Series(_ONE, "ms", "less", 0),
        Series(_MANY, "s", "less", 2),
        Series(_MEMORY, "KiB", "less", 1),
        Series(_DESCRIPTORS, "", "less", 2),
        Series(_IMPORT, "ms", "less", 0),
    ),
    bars=(
        Absolute(_ONE, 400.0),
        Absolute(_MANY, 2.0),
        Absolute(_MEMORY, 40.0),
        Absolute(_DESCRIPTORS, 2.0),
        Absolute(_IMPORT, 60.0),
    ),
    peers=("qanat", "nginx", "haproxy", "socat"),
    open=_open,
)
