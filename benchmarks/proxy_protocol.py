"""Short connections with a PROXY header of version 2 in and out, against the same connections
without: which share of them is left?"""

from __future__ import annotations

import dataclasses
import ipaddress
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import generator
from benchmarks.peers import Peer, Qanat
from benchmarks.question import Absolute, Question, Sample, Series, Setting
from benchmarks.relayed import site

__all__ = ["QUESTION"]

_SHARE = "connect with PROXY v2 in and out: share of the rate without"
_WITH = "connect with PROXY v2 in and out: rate"
_WITHOUT = "connect without PROXY, same bytes: rate"


def _header() -> bytes:
    """The same for every connection. It goes out as it came in, so that the echo is the same with
    and without."""
    source, target = (ipaddress.ip_address(text) for text in ("192.0.2.7", "198.51.100.1"))
    body = source.packed + target.packed + struct.pack("!HH", 51000, 443)
    return b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11" + struct.pack("!H", len(body)) + body


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    assert isinstance(peer, Qanat)
    keys = {"accept_proxy": True, "send_proxy": True}
    announcing = dataclasses.replace(peer, network=keys)
    with site(peer, "echo") as plain, site(announcing, "echo") as announced:

        def rate(address: str) -> float:
            result = generator.client(
                "connect",
                address,
                size=64,
                opening=_header().hex(),
                seconds=setting.seconds,
                warm_up=setting.warm_up,
            )
            return float(result["rate"])

        def sample() -> dict[str, float]:
            without = rate(plain.address("echo"))
            with_header = rate(announced.address("echo"))
            return {_WITH: with_header, _WITHOUT: without, _SHARE: with_header / without}

        yield sample


QUESTION = Question(
    name="proxy_protocol",
    text=__doc__,
    series=(
        Series(_SHARE, "", "more", 2),
        Series(_WITH, "1/s", "more", 0),
        Series(_WITHOUT, "1/s", "more", 0),
    ),
    bars=(Absolute(_SHARE, 0.95),),
    peers=("qanat",),
    open=_open,
)
