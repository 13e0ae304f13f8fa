"""Health checks: how much of one core do 2,000 endpoints with checks every 5 seconds take?"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context

from benchmarks.peers import Peer, Qanat
from benchmarks.question import Absolute, Question, Sample, Series, Setting

__all__ = ["QUESTION"]

ENDPOINTS = 2_000
INTERVAL = 5.0

_CPU = f"{ENDPOINTS:,} endpoints with checks every {INTERVAL:g} s: one core"
_MADE = "checks made a second"


@contextmanager
def _targets() -> Iterator[tuple[int, socket.socket]]:
    """A port that is open on every address of this machine, and a socket that tells how many came.

    Whoever accepts has a process of its own, so that its work is nobody's here."""
    context = get_context("fork")
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen(4_096)
        mine, theirs = socket.socketpair()
        with mine, theirs:
            process = context.Process(target=_accept, args=(listener, theirs), daemon=True)
            process.start()
            try:
                yield listener.getsockname()[1], mine
            finally:
                process.kill()
                process.join()


def _accept(listener: socket.socket, teller: socket.socket) -> None:
    count = 0
    os.set_blocking(teller.fileno(), False)
    while True:
        client, _ = listener.accept()
        client.close()
        count += 1
        try:
            asked = teller.recv(1)
        except BlockingIOError:
            continue
        if asked:
            teller.send(count.to_bytes(8))


def _count(teller: socket.socket) -> int:
    teller.send(b"?")
    return int.from_bytes(teller.recv(8))


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    assert isinstance(peer, Qanat)
    endpoints, interval = (50, 0.5) if setting.quick else (ENDPOINTS, INTERVAL)

    def sample() -> dict[str, float]:
        with (
            _targets() as (port, teller),
            peer.relay_checked(endpoints, port, interval) as relaying,
        ):
            # Until every endpoint was checked once.
            time.sleep(1.5 * interval)
            before, began, cpu = _count(teller), time.monotonic(), relaying.cpu_seconds()
            time.sleep(2 * interval)
            took = time.monotonic() - began
            spent = relaying.cpu_seconds() - cpu
            made = _count(teller) - before
        return {_CPU: 100 * spent / took, _MADE: made / took}

    yield sample


QUESTION = Question(
    name="health_checks",
    text=__doc__,
    series=(Series(_CPU, "%", "less", 1), Series(_MADE, "/s", "more", 0)),
    bars=(Absolute(_CPU, 5.0),),
    peers=("qanat",),
    open=_open,
    warm=False,
    rounds=3,
)
