"""A flow that is held to a rate: how far is it from it over 5 seconds, and how smooth is it?

The client runs here: what counts is when the bytes of each tenth of a second came, and a gigabit a
second leaves a Python client time enough."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.peers import Peer, Qanat
from benchmarks.question import Absolute, Question, Sample, Series, Setting
from benchmarks.relayed import site

__all__ = ["QUESTION"]

_RATES = {"1 MB/s": 1_000_000, "100 Mbit/s": 12_500_000, "1 Gbit/s": 125_000_000}
_DIRECTIONS = ("up", "down")
_SPAN = 5.0
_SLICE = 0.1
_WARM_UP = 1.0
"""The burst at the beginning is over, and so is the filling of the sockets' buffers."""
_CHUNK = 1 << 18


def _error(rate: str, direction: str) -> str:
    return f"rate of {rate}, {direction}: away from it over 5 s"


def _unrest(rate: str, direction: str) -> str:
    return f"rate of {rate}, {direction}: tenths of a second that are 10 % away"


def _mover(connection: socket.socket, direction: str) -> Callable[[], int]:
    buffer = memoryview(bytearray(_CHUNK))
    if direction == "up":
        return lambda: connection.send(buffer)
    return lambda: connection.recv_into(buffer)


def _run(address: str, direction: str, limit: int, span: float) -> tuple[float, float]:
    """The relative error, and the share of slices that are too far off."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        move = _mover(connection, direction)
        until = time.monotonic() + _WARM_UP
        while time.monotonic() < until:
            move()
        # Each slice has its own time, since a call returns when it has something.
        began = mark = time.monotonic()
        total = part = 0
        deviations: list[float] = []
        while mark - began < span:
            part += move()
            now = time.monotonic()
            if now - mark >= _SLICE:
                deviations.append(abs(part / (now - mark) / limit - 1))
                total += part
                part = 0
                mark = now
    error = abs(total / (mark - began) / limit - 1)
    far = sum(deviation > 0.1 for deviation in deviations)
    return error, far / len(deviations)


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    assert isinstance(peer, Qanat)
    span = 0.5 if setting.quick else _SPAN

    def sample() -> dict[str, float]:
        values: dict[str, float] = {}
        for rate, limit in _RATES.items():
            keys = {f"max_rate_{direction}_per_flow": limit for direction in _DIRECTIONS}
            with site(dataclasses.replace(peer, network=keys), "discard", "source") as here:
                for direction in _DIRECTIONS:
                    address = here.address("discard" if direction == "up" else "source")
                    error, unrest = _run(address, direction, limit, span)
                    values[_error(rate, direction)] = 100 * error
                    values[_unrest(rate, direction)] = 100 * unrest
        return values

    yield sample


_CASES = [(rate, direction) for rate in _RATES for direction in _DIRECTIONS]

QUESTION = Question(
    name="rates",
    text=__doc__,
    series=tuple(
        Series(name(*case), "%", "less", 1) for case in _CASES for name in (_error, _unrest)
    ),
    bars=tuple(Absolute(_error(*case), 3.0) for case in _CASES),
    peers=("qanat",),
    open=_open,
    warm=False,
    rounds=2,
)
