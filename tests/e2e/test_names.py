"""Targets with names, asked of a real name server: answers that age, change, and never come."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.name_server import NameServer, name_server
from tests.support.netns import Wire
from tests.support.peers import Target, connect, flow, hear, resets, talk
from tests.support.relay_process import RelayProcess
from tests.support.wait import wait_until

TTL = 2

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def names(tmp_path: Path) -> Iterator[NameServer]:
    with name_server(tmp_path, ttl=TTL) as running:
        yield running


@pytest.fixture
def pair() -> Iterator[tuple[Target, Target]]:
    """Two targets with one port, on two addresses of this machine."""
    with (
        Target("127.0.0.2", backlog=4096) as one,
        Target("127.0.0.3", port=one.port, backlog=4096) as other,
    ):
        yield one, other


def reached(relay: RelayProcess) -> str:
    """The address that a new flow goes to."""
    with connect(relay.address) as client:
        mine = f"127.0.0.1:{client.getsockname()[1]}"

        def shown() -> list[str]:
            return [flow["peer"] for flow in relay.flows() if flow["client"] == mine]

        wait_until(lambda: shown() and shown()[0], what="the flow is connected")
        return shown()[0].rpartition(":")[0]


def test_a_changed_answer_is_followed_when_the_old_one_has_run_out(
    start: Start, names: NameServer, pair: tuple[Target, Target]
) -> None:
    one, other = pair
    names.answer({"db.test": ["127.0.0.2"]})
    words = ("--dns-servers", names.address)
    relay = start("-l", "127.0.0.1:0", "-r", f"db.test:{one.port}", *words)
    asked = time.monotonic()
    with flow(relay.address, one) as (client, server):
        names.answer({"db.test": ["127.0.0.3"]})
        early = reached(relay)
        if time.monotonic() - asked < TTL:
            assert early == "127.0.0.2", "an answer is kept as long as it says"
            assert relay.stats()["resolver"]["cached"] >= 1
        wait_until(lambda: reached(relay) == "127.0.0.3", TTL + 5)
        assert time.monotonic() - asked >= TTL - 0.1
        talk(client, server)
        with other.accept():
            pass
    assert relay.ended(reason="resolve_failed") == []


def test_a_dead_name_server_does_not_take_its_names_along(
    start: Start, names: NameServer, pair: tuple[Target, Target]
) -> None:
    """What was known serves on; what was never known fails in time."""
    one, _ = pair
    names.answer({"db.test": ["127.0.0.2"]})
    unknown = f"other.test:{one.port}"
    words = ("--dns-servers", names.address, "--tcp-timeout", "3")
    relay = start(
        "-l", "127.0.0.1:0", "-r", f"db.test:{one.port}", "-l", "127.0.0.1:0", "-r", unknown, *words
    )
    assert reached(relay) == "127.0.0.2"
    names.signal(signal.SIGSTOP)
    # Each look is a flow that must succeed; the last ones come long after the answer has run out.
    wait_until(lambda: reached(relay) and relay.stats()["resolver"]["stale"] >= 2, TTL + 8)
    assert {record["reason"] for record in relay.ended()} <= {"client_closed", "client_reset"}
    began = time.monotonic()
    assert resets(relay.addresses()[1])
    assert time.monotonic() - began < 6
    # Back again, it is believed again.
    names.signal(signal.SIGCONT)
    names.answer({"db.test": ["127.0.0.3"]})
    wait_until(lambda: reached(relay) == "127.0.0.3", 12)


def test_a_name_that_does_not_exist_may_come_to_exist(
    start: Start, names: NameServer, pair: tuple[Target, Target]
) -> None:
    words = ("--dns-servers", names.address)
    relay = start("-l", "127.0.0.1:0", "-r", f"new.test:{pair[0].port}", *words)
    began = time.monotonic()
    assert resets(relay.address)
    assert time.monotonic() - began < 4, "a clear answer needs no waiting"
    record = relay.end_of_flow()
    assert record["reason"] == "resolve_failed"
    assert "new.test" in record["detail"]
    names.answer({"new.test": ["127.0.0.2"]})

    wait_until(lambda: not resets_soon(relay), 10, "the name is found")


def resets_soon(relay: RelayProcess) -> bool:
    """Whether a new flow has no target. One that has hears nothing."""
    try:
        with connect(relay.address) as client:
            client.settimeout(0.3)
            return client.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def test_the_time_to_connect_includes_the_name(start: Start) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        words = ("--dns-servers", server, "--tcp-timeout", "1")
        relay = start("-l", "127.0.0.1:0", "-r", "name.test:80", *words)
        began = time.monotonic()
        assert resets(relay.address)
        assert 0.9 < time.monotonic() - began < 4
        assert relay.end_of_flow()["reason"] == "connect_timeout"


@pytest.mark.root
@pytest.mark.parametrize(
    ("given", "wins"),
    [
        (["10.72.0.99", "fd72::2"], "[fd72::2]:80"),
        (["10.72.0.99", "10.72.0.98", "fd72::99", "10.72.0.2"], "10.72.0.2:80"),
        (["fd72::99", "10.72.0.2"], "10.72.0.2:80"),
    ],
    ids=["dead v4", "many dead", "dead v6"],
)
def test_addresses_that_nobody_answers_for_cost_a_quarter_of_a_second_each(
    start: Start, wire: Wire, tmp_path: Path, given: list[str], wins: str
) -> None:
    for dead in ("10.72.0.98", "10.72.0.99", "fd72::99"):
        wire.swallow(dead)
    with wire.target.entered():
        v4, v6 = Target("10.72.0.2", port=80), Target("fd72::2", port=80)
    with v4, v6, name_server(tmp_path, ttl=60, inside=wire.relay) as names:
        names.answer({"db.test": given})
        words = ("-l", f"{wire.NEAR}:80", "-r", "db.test:80", "--dns-servers", names.address)
        relay = start(*words, before=wire.relay.before)
        served = (v6 if "[" in wins else v4).accept
        quiet = 0
        for number in range(5):
            with wire.client.entered():
                client = connect((wire.NEAR, 80))
            with client, served() as server:
                talk(client, server)
                (shown,) = relay.flows()
                assert shown["peer"] == wins
                assert shown["connect"] < 0.25 * (len(given) - 1) + 1.0
            wait_until(lambda: relay.flows() == [])
            # The first one starts the resolver.
            quiet = quiet if number else relay.descriptors
        wait_until(lambda: relay.descriptors <= quiet + 2, what="attempts that lost are closed")


@pytest.mark.root
def test_names_come_from_the_system_where_nothing_else_is_said(
    start: Start, wire: Wire, tmp_path: Path
) -> None:
    """`/etc/hosts`, and `/etc/resolv.conf` with its search list, as they change."""
    etc = Path("/etc/netns") / wire.relay.name
    etc.mkdir(parents=True)
    try:
        hosts, resolv = etc / "hosts", etc / "resolv.conf"
        hosts.write_text("10.72.0.2 file\n")
        with name_server(tmp_path, ttl=1, port=53, inside=wire.relay) as names:
            resolv.write_text("nameserver 127.0.0.1\nsearch nowhere.test inner.test\n")
            names.answer({"db.inner.test": ["10.72.0.2"]})
            with wire.target.entered():
                target = Target("10.72.0.2", port=80)
            near = wire.NEAR
            words = ("-l", f"{near}:80", "-r", "file:80", "-l", f"{near}:81", "-r", "db:80")
            relay = start(*words, before=wire.relay.before)
            with target, wire.client.entered():
                for address in relay.addresses():
                    with flow(address, target) as (client, server):
                        talk(client, server)
    finally:
        for file in etc.iterdir():
            file.unlink()
        etc.rmdir()


def test_localhost_needs_no_name_server(start: Start, target: Target) -> None:
    words = ("--dns-servers", "127.0.0.1:1")
    relay = start("-l", "127.0.0.1:0", "-r", f"localhost:{target.port}", *words)
    with flow(relay.address, target) as (client, server):
        client.sendall(b"?")
        assert hear(server, 1) == b"?"
