"""Short connections that are routed by the name in their TLS ClientHello, which stays whole: how
many a second, and which share of those without a look?"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import generator
from benchmarks.peers import Haproxy, Peer, Qanat
from benchmarks.question import Absolute, Question, Ratio, Sample, Series, Setting
from benchmarks.relayed import site

__all__ = ["QUESTION"]

_RATE = "route by server name: rate"
_PLAIN = "same bytes without a look: rate"
_SHARE = "route by server name: share of the rate without a look"
_NAME = "one.example"


def _list(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


def _hello() -> bytes:
    """A ClientHello of a common size."""
    name = b"\0\0" + _list(_list(b"\0" + _list(_NAME.encode())))
    extensions = name + b"\0\x33" + _list(bytes(250))
    ciphers = _list(b"\x13\x01\x13\x02")
    message = b"\3\3" + bytes(32) + b"\0" + ciphers + b"\1\0" + _list(extensions)
    handshake = b"\1" + len(message).to_bytes(3, "big") + message
    return b"\x16\3\1" + _list(handshake)


def _looking(peer: Peer) -> Peer:
    if isinstance(peer, Haproxy):
        return dataclasses.replace(peer, server_name=_NAME)
    assert isinstance(peer, Qanat)
    # The rule leads where everybody goes, so that the same target serves both.
    return dataclasses.replace(peer, routed=_NAME)


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    with site(peer, "echo") as plain, site(_looking(peer), "echo") as looking:

        def rate(address: str) -> float:
            result = generator.client(
                "connect",
                address,
                size=64,
                opening=_hello().hex(),
                seconds=setting.seconds,
                warm_up=setting.warm_up,
            )
            return float(result["rate"])

        def sample() -> dict[str, float]:
            without = rate(plain.address("echo"))
            routed = rate(looking.address("echo"))
            return {_RATE: routed, _PLAIN: without, _SHARE: routed / without}

        yield sample


QUESTION = Question(
    name="server_name",
    text=__doc__,
    series=(
        Series(_RATE, "1/s", "more", 0),
        Series(_SHARE, "", "more", 2),
        Series(_PLAIN, "1/s", "more", 0),
    ),
    bars=(Absolute(_SHARE, 0.9), Ratio(_RATE, 1.0, ("haproxy",))),
    peers=("qanat", "haproxy"),
    open=_open,
)
