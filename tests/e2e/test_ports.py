"""A port that the kernel chooses for both protocols is one that both can have."""

from __future__ import annotations

import socket

import pytest

from tests.e2e.conftest import Start
from tests.support.netns import network

__all__: list[str] = []


@pytest.mark.root
def test_a_port_that_is_free_for_tcp_alone_is_not_taken(start: Start) -> None:
    with network() as made:
        here = made.namespace()
        here.set("net/ipv4/ip_local_port_range", "'40000 40001'")
        with here.entered(), socket.socket(type=socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 40_000))
            # It chose the wrong one half of the time.
            for _ in range(5):
                words = ("-l", "127.0.0.1:0", "-r", "127.0.0.1:9", "-u")
                relay = start(*words, before=here.before)
                (endpoint,) = relay.ask("/endpoints")
                assert endpoint["tcp_address"] == endpoint["udp_address"] == "127.0.0.1:40001"
                assert relay.stop() == 0
