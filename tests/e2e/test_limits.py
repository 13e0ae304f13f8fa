"""Limits refuse at once, are counted and told, and let others in again when there is room."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.netns import Wire
from tests.support.peers import PATIENCE, Address, Target, connect, flow, resets, talk
from tests.support.relay_process import RelayProcess, endpoints_toml
from tests.support.wait import wait_until


def refused(relay: RelayProcess, endpoint: int = 0) -> dict[str, int]:
    found: dict[str, int] = relay.counted(endpoint=endpoint)["refused"]
    return found


def told(relay: RelayProcess, code: str) -> bool:
    return any(line.get("code") == code for line in relay.notices())


def test_connections_at_once(start: Start, target: Target) -> None:
    relay = start("-l", "127.0.0.1:0", "-r", target.address, "--max-connections", "3")
    with flow(relay.address, target), flow(relay.address, target):
        with flow(relay.address, target) as (client, server):
            began = time.monotonic()
            assert resets(relay.address)
            assert resets(relay.address)
            assert time.monotonic() - began < 4
            assert refused(relay) == {"connections": 2}
            wait_until(lambda: told(relay, "connections"), what="it is told")
            talk(client, server)
        wait_until(lambda: len(relay.flows()) == 2)
        with flow(relay.address, target) as (client, server):
            talk(client, server)
    assert relay.ended(reason="error") == []


def test_connections_a_second(start: Start, target: Target) -> None:
    relay = start("-l", "127.0.0.1:0", "-r", target.address, "--max-connection-rate", "5")
    began = time.monotonic()
    with ExitStack() as held:
        for _ in range(40):
            try:
                held.enter_context(connect(relay.address))
            except ConnectionResetError:
                continue
        wait_until(lambda: sum(refused(relay).values()) + relay.counted()["total"] == 40)
        taken = relay.counted()["total"]
        assert 5 <= taken <= 5 + 5 * (time.monotonic() - began) + 1
        assert refused(relay) == {"connection_rate": 40 - taken}
        # Room comes back with time, not with flows that end.
        wait_until(lambda: not is_refused(relay), 5, "a new one is taken")


def is_refused(relay: RelayProcess) -> bool:
    before = relay.counted()["total"]
    try:
        with connect(relay.address):
            pass
    except ConnectionResetError:
        return True
    wait_until(lambda: relay.counted()["total"] + sum(refused(relay).values()) > before)
    return bool(relay.counted()["total"] == before)


def test_connections_of_one_client(start: Start, target: Target) -> None:
    relay = start("-l", "127.0.0.1:0", "-r", target.address, "--max-connections-per-client", "2")
    with flow(relay.address, target), flow(relay.address, target):
        assert resets(relay.address)
        assert refused(relay) == {"connections_per_client": 1}
        with connect_from("127.0.0.5", relay.address) as client, target.accept() as server:
            talk(client, server)
    wait_until(lambda: relay.flows() == [])
    with flow(relay.address, target) as (client, server):
        talk(client, server)


@pytest.mark.root
def test_a_client_with_a_network_of_its_own_is_one_client(start: Start, wire: Wire) -> None:
    """Whoever has an IPv6 address has 2^64 of them."""
    wire.client.ip(
        "address add fd71::77/64 dev eth0 nodad", "address add fd7a::1/64 dev eth0 nodad"
    )
    wire.relay.ip("route add fd7a::/64 dev eth0")
    words = ("-l", "[::]:80", "-r", f"{wire.TARGET}:80", "--max-connections-per-client", "2")
    relay = start(*words, before=wire.relay.before)
    with wire.target.entered():
        target = Target(wire.TARGET, port=80)
    with target, wire.client.entered():
        address = ("fd71::2", 80)
        with connect_from("fd71::1", address), connect_from("fd71::77", address):
            wait_until(lambda: len(relay.flows()) == 2)
            assert resets_from("fd71::77", address)
            assert refused(relay) == {"connections_per_client": 1}
            with connect_from("fd7a::1", address), connect((wire.NEAR, 80)):
                wait_until(lambda: len(relay.flows()) == 4)


def test_limits_of_all_endpoints_together_and_how_a_reload_changes_them(
    start: Start, target: Target, tmp_path: Path
) -> None:
    path = tmp_path / "relay.toml"
    pairs = [("127.0.0.1:0", target.address), ("127.0.0.2:0", target.address)]
    path.write_text(endpoints_toml(pairs, "[limits]\nmax_connections = 2\n"))
    relay = start("-c", str(path))
    one, other = relay.addresses()
    with flow(one, target) as (client, server), flow(other, target):
        assert resets(one)
        assert resets(other)
        assert refused(relay, 0) == refused(relay, 1) == {"overall_connections": 1}
        path.write_text(endpoints_toml(pairs, "[limits]\nmax_connections = 3\n"))
        relay.reload()
        with flow(other, target) as (more, far):
            talk(more, far)
            assert resets(one)
        path.write_text(endpoints_toml(pairs, "[limits]\nmax_connections = 1\n"))
        relay.reload()
        talk(client, server)
        assert resets(one)


def connect_from(source: str, address: Address) -> socket.socket:
    return socket.create_connection(address, PATIENCE, (source, 0))


def resets_from(source: str, address: Address) -> bool:
    try:
        with connect_from(source, address) as client:
            return client.recv(1) == b"?"
    except ConnectionResetError:
        return True
