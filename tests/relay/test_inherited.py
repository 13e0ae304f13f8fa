from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from qanat.errors import ConfigError
from qanat.plan import EndpointPlan, RemotePlan, UdpPlan
from qanat.relay.inherited import Inherited

BOTH = EndpointPlan(
    id="web",
    listen="127.0.0.1:80",
    remotes=(RemotePlan(host="h", port=1),),
    udp=UdpPlan(),
)


@pytest.fixture
def sockets() -> Iterator[tuple[int, int]]:
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.socket(type=socket.SOCK_STREAM))
        udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        yield tcp.fileno(), udp.fileno()


@pytest.mark.parametrize("name", ["web", "127.0.0.1:80"])
def test_sockets_go_to_the_endpoint_of_that_id_or_address(
    sockets: tuple[int, int], name: str
) -> None:
    tcp, udp = sockets
    inherited = Inherited({f"tcp://{name}": tcp, f"udp://{name}": udp})
    assert inherited.take(BOTH) == (tcp, udp)
    assert inherited.take(BOTH) == (-1, -1)
    assert inherited.left == []


def test_the_socket_itself_says_which_it_is(sockets: tuple[int, int]) -> None:
    tcp, udp = sockets
    assert Inherited({"web": udp}).take(BOTH) == (-1, udp)
    assert Inherited({"web": tcp}).take(BOTH) == (tcp, -1)


def test_addresses_are_compared_and_not_texts(sockets: tuple[int, int]) -> None:
    tcp, _ = sockets
    any_host = EndpointPlan(id="x", listen="0.0.0.0:80", remotes=BOTH.remotes)
    assert Inherited({"*:80": tcp}).take(any_host) == (tcp, -1)


def test_what_nothing_took_is_told(sockets: tuple[int, int]) -> None:
    tcp, _ = sockets
    inherited = Inherited({"elsewhere": tcp})
    assert inherited.take(BOTH) == (-1, -1)
    assert inherited.left == [tcp]


def test_what_is_no_socket_or_the_wrong_one_is_refused(sockets: tuple[int, int]) -> None:
    tcp, _ = sockets
    reading, writing = os.pipe()
    try:
        with pytest.raises(ConfigError) as caught:
            Inherited({"pipe": reading, "udp://web": tcp})
    finally:
        os.close(reading)
        os.close(writing)
    first, second = caught.value.problems
    assert first.key == "pipe"
    assert "not udp" in second.message


def test_two_for_the_same_are_refused(sockets: tuple[int, int]) -> None:
    tcp, _ = sockets
    with socket.socket() as other, pytest.raises(ConfigError, match="two inherited"):
        Inherited({"tcp://127.0.0.1:80": tcp, "127.0.0.1:80": other.fileno()})
