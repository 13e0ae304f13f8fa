"""Running out of descriptors at half load: what runs goes on, nothing spins, and it recovers."""

from __future__ import annotations

import resource
import time
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.support.crowd import crowd, echo_process
from tests.support.peers import PATIENCE, Target, beside, flow, hear, pattern, talk
from tests.support.relay_process import RelayProcess
from tests.support.wait import wait_until

LIMIT = 512

pytestmark = pytest.mark.timeout(60)


def told(relay: RelayProcess, sign: str) -> list[dict[str, Any]]:
    return [line for line in relay.notices() if sign in line["message"]]


def set_limit(relay: RelayProcess, soft: int) -> None:
    """From outside, while it runs."""
    _, hard = resource.prlimit(relay.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, (soft, hard))


def test_who_finds_no_descriptor_is_refused_and_the_others_go_on(start: Start) -> None:
    """New flows get no descriptor that others need: flows that were taken reach their target, and
    the operator may look."""
    with echo_process() as address, crowd() as early, crowd() as late:
        relay = start("-l", "127.0.0.1:0", "-r", address, "-n", str(LIMIT))
        assert early.open([relay.address], 60) == 60
        assert early.talk() == 60
        began, cpu = time.monotonic(), relay.cpu_seconds
        made = late.open([relay.address], 400)
        served = late.talk()
        assert 100 < served <= made <= 400
        wait_until(lambda: len(relay.flows()) == 60 + served)
        assert relay.counted()["refused"] == {"descriptors": 400 - served}
        assert relay.counted()["ended"] == {}
        while time.monotonic() - began < 2.5:
            assert early.talk() == 60, "a running flow was harmed"
            assert relay.flows()
            late.open([relay.address], 5)
            time.sleep(0.1)
        seconds = time.monotonic() - began
        assert relay.cpu_seconds - cpu < 0.5 * seconds, "it spins"
        assert 1 <= len(told(relay, "descriptors")) <= seconds + 2
        late.close()
        wait_until(lambda: len(relay.flows()) == 60, 20)
        assert late.open([relay.address], 100) == 100
        assert late.talk() == 100
        assert early.talk() == 60


def test_with_no_descriptor_at_all_it_waits_quietly_and_goes_on_later(
    start: Start, target: Target
) -> None:
    """The kernel refuses even to accept, and refuses pipes: running flows are copied."""
    relay = start("-l", "127.0.0.1:0", "-r", target.address)
    with crowd() as waiting, flow(relay.address, target) as (client, server):
        talk(client, server)
        before = resource.prlimit(relay.pid, resource.RLIMIT_NOFILE)[0]
        wait_until(lambda: relay.descriptors <= 20)
        set_limit(relay, 1)
        began, cpu = time.monotonic(), relay.cpu_seconds
        assert waiting.open([relay.address], 50) == 50, "the kernel takes them meanwhile"
        wait_until(lambda: told(relay, "os error 24"), what="the shortage is told")
        stream = pattern(20_000_000)
        sending = beside(server.sendall, stream)
        assert hear(client, len(stream)) == stream
        sending.result(PATIENCE)
        copied = relay.cpu_seconds - cpu
        began, cpu = time.monotonic(), relay.cpu_seconds
        time.sleep(2)
        assert relay.cpu_seconds - cpu < 0.5, f"it spins ({copied} s were for the copy)"
        assert 1 <= len(told(relay, "os error 24")) <= time.monotonic() - began + 4
        set_limit(relay, before)
        taken = [target.accept() for _ in range(50)]
        for sock in taken:
            sock.close()
        talk(client, server)
        assert relay.counted()["accept_errors"] > 0
