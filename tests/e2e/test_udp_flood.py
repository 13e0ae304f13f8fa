"""More clients than anybody has: floods of invented sources, and what they may cost."""

from __future__ import annotations

import socket

import pytest

from tests.e2e.conftest import Start
from tests.support.datagrams import Spoofer, echo, udp_client, udp_target
from tests.support.netns import Wire
from tests.support.relay_process import RelayProcess
from tests.support.wait import wait_until

SOURCES = 50_000
MOST = 4_096
"""The limit of an endpoint that sets none."""

pytestmark = [pytest.mark.root, pytest.mark.timeout(90)]


def udp_flows(relay: RelayProcess) -> int:
    return sum(worker["flows"] for worker in relay.stats()["workers"])


def wait_total(relay: RelayProcess, count: int) -> None:
    wait_until(lambda: relay.counted("udp")["total"] >= count, what=f"{count} associations")


def swallow_all(target: socket.socket) -> int:
    """Throw away what waits; how much it was."""
    target.setblocking(False)
    count = 0
    try:
        while True:
            target.recv(65_535)
            count += 1
    except BlockingIOError:
        return count


def test_fifty_thousand_invented_sources_cost_as_much_as_the_limit_allows(
    start: Start, wire: Wire
) -> None:
    """The least recently used give way, so a client that is served goes on being served."""
    # Answers to invented addresses have a way to go, as on the internet.
    wire.relay.ip(f"route add 10.128.0.0/9 via {wire.CLIENT}")
    before = wire.relay.before
    words = ("-u", "-t", "-l", f"{wire.NEAR}:53", "-r", f"{wire.TARGET}:53", "--udp-timeout", "3")
    # A line for each that ends would wait in a queue of its own.
    relay = start(*words, before=before, level="warn")
    with wire.target.entered():
        target_socket = udp_target(wire.TARGET, 53)
    with wire.client.entered():
        client_socket, spoofer = udp_client((wire.NEAR, 53)), Spoofer((wire.NEAR, 53))
    with target_socket as target, client_socket as client, spoofer:
        client.send(b"hello")
        (first,) = echo(target)
        assert client.recv(100) == b"hello"
        quiet, memory = relay.descriptors, relay.memory
        for start_at in range(0, SOURCES, 1_000):
            numbers = range(start_at, start_at + 1_000)
            sources = [(f"10.{128 + n % 100}.{n // 250 % 250}.{n % 250 + 1}", n) for n in numbers]
            spoofer.flood([(host, 1024 + port) for host, port in sources], b"flood")
            # In step with the relay, or the kernel would drop what this test is about.
            wait_total(relay, start_at + 1_001)
            swallow_all(target)
            target.settimeout(15)
            client.send(b"still")
            assert echo(target) == [first], "the client lost its association"
            assert client.recv(100) == b"still"
        counted = relay.counted("udp")
        assert counted["open"] == MOST
        assert counted["ended"]["evicted"] == SOURCES + 1 - MOST
        assert relay.descriptors <= quiet + MOST + 2
        assert relay.memory - memory < MOST * 4 * 1024
        assert relay.notices() == []
        # All of them end by their silence, and give back what they had.
        wait_until(lambda: udp_flows(relay) == 0, 20)
        assert relay.descriptors <= quiet + 2
        client.send(b"later")
        assert echo(target) != [first]
        assert client.recv(100) == b"later"


def test_a_flood_without_a_limit_of_its_own_leaves_descriptors_for_others(
    start: Start, wire: Wire
) -> None:
    """The limit is above what the system gives: TCP and the operator still get theirs."""
    wire.relay.ip(f"route add 10.128.0.0/9 via {wire.CLIENT}")
    where = ("-l", f"{wire.NEAR}:53", "-r", f"{wire.TARGET}:53", "-n", "512")
    relay = start("-u", *where, before=wire.relay.before)
    with wire.target.entered():
        target_socket = udp_target(wire.TARGET, 53)
    with wire.client.entered():
        spoofer = Spoofer((wire.NEAR, 53))
    with target_socket, spoofer:
        cpu = relay.cpu_seconds
        for number in range(3_000):
            spoofer.send((f"10.130.{number // 250}.{number % 250 + 1}", 5353), b"flood")
        wait_until(lambda: udp_flows(relay) > 200)
        wait_until(lambda: relay.counted("udp")["packets_up"] > 300)
        assert relay.descriptors < 512 - 20
        assert relay.cpu_seconds - cpu < 10
        assert relay.flows()
