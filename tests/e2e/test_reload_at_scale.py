"""Thousands of flows and a thousand endpoints, through one reload and through a hundred."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.crowd import Crowd, crowd, echo_process
from tests.support.relay_process import Address, RelayProcess, endpoints_toml
from tests.support.wait import wait_until

FLOWS = 5_000
ENDPOINTS = 1_000
RELOADS = 100
HOST = f"127.78.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"
"""Of this process alone."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


class Scene:
    """A relay with many endpoints, whose first one changes its target at each ``change``."""

    def __init__(self, path: Path, targets: tuple[str, str]) -> None:
        self.path = path
        self.targets = targets
        # Below the ports that the kernel gives to clients.
        self.addresses: list[Address] = [(HOST, 10_000 + n) for n in range(ENDPOINTS)]
        self.now = 0
        self.write()

    def write(self) -> None:
        pairs = [(f"{host}:{port}", self.targets[0]) for host, port in self.addresses]
        pairs[0] = (pairs[0][0], self.target)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(endpoints_toml(pairs))
        fresh.replace(self.path)

    @property
    def target(self) -> str:
        """Where the first endpoint goes by the file."""
        return self.targets[self.now]

    def change(self) -> None:
        self.now = 1 - self.now
        self.write()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with echo_process() as one, echo_process() as other:
        yield Scene(tmp_path / "relay.toml", (one, other))


@pytest.fixture
def clients() -> Iterator[Crowd]:
    with crowd() as made:
        yield made


def open_flows(relay: RelayProcess) -> int:
    return sum(worker["flows"] for worker in relay.stats()["workers"])


def test_five_thousand_flows_live_through_a_hundred_reloads(
    start: Start, scene: Scene, clients: Crowd
) -> None:
    """One reload changes one endpoint of a thousand, and no flow is touched, not even that one's;
    a hundred leave nothing behind."""
    relay = start("-c", str(scene.path))
    quiet = relay.descriptors
    assert clients.open(scene.addresses, FLOWS) == FLOWS
    assert clients.talk() == FLOWS
    assert open_flows(relay) == FLOWS
    full = relay.descriptors
    assert full - quiet < 2 * FLOWS + 100

    scene.change()
    report = relay.reload()
    assert report["changed"] == [f"{HOST}:10000"]
    assert len(report["untouched"]) == ENDPOINTS - 1
    assert clients.talk() == FLOWS
    first = {flow["target"] for flow in relay.flows()}
    assert first == {scene.targets[0]}, "flows that were there keep their target"
    assert clients.open(scene.addresses[:1], 1) == 1
    wait_until(lambda: scene.targets[1] in {flow["target"] for flow in relay.flows()})

    memory = descriptors = 0
    for number in range(RELOADS):
        # Thousands of flows that rest together send their keepalive probes together, more than the
        # loopback device takes at once: let them move now and then.
        if number % 20 == 0:
            assert clients.talk() == FLOWS + 1
        # Allocators and caches grow with the first reloads and then no more.
        if number == RELOADS // 2:
            memory, descriptors = relay.memory, relay.descriptors
        scene.change()
        if number % 10 == 9:
            relay.signal(signal.SIGHUP)
            wait_until(lambda: relay.ask("/endpoints")[0]["remotes"] == [scene.target])
        else:
            assert relay.reload()["changed"] == [f"{HOST}:10000"]
    assert clients.talk() == FLOWS + 1
    assert open_flows(relay) == FLOWS + 1
    assert relay.descriptors <= descriptors + 2
    assert relay.memory < memory + 24 * 1024 * 1024

    assert clients.close() == 0
    wait_until(lambda: open_flows(relay) == 0, 30)
    wait_until(lambda: relay.descriptors <= quiet + 2, what="descriptors are given back")
    assert relay.stderr == ""
