"""Clocks that jump. No limit of the relay may follow the wall clock, which people and daemons set,
and none may depend on where the monotonic clock began.

The wall clock of the whole machine is nothing to play with, so it is moved for the relay alone: a
small library stands in front of the C library's clock, which the engine and Python both ask, and
adds what a file says. The first thing each test looks at is that the relay does see the jump.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.datagrams import echo, udp_client, udp_target
from tests.support.name_server import name_server
from tests.support.peers import Target, connect, flow, is_reset, talk
from tests.support.wait import wait_until

HOUR = 3_600
SOURCE = Path(__file__).parents[1] / "support" / "wall_clock.c"


class WallClock:
    """How far the relay's wall clock is off."""

    def __init__(self, directory: Path) -> None:
        self._library = directory / "wall_clock.so"
        self._file = directory / "shift"
        words = ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(words, check=True, timeout=60)
        self.jump(0)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "WALL_CLOCK": str(self._file)}

    def jump(self, seconds: int) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self._file)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> WallClock:
    return WallClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture
def clock(library: WallClock) -> WallClock:
    library.jump(0)
    return library


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_jump_of_the_wall_clock_ends_no_flow_and_delays_no_end(
    start: Start, target: Target, clock: WallClock, jump: int
) -> None:
    with udp_target("127.0.0.1", target.port) as datagrams:
        words = ("--idle-timeout", "2", "--udp-timeout", "2", "--linger", "2", "-u")
        relay = start("-l", "127.0.0.1:0", "-r", target.address, *words, **clock.environment)
        with (
            flow(relay.address, target) as (client, server),
            flow(relay.address, target) as (ending, half),
            udp_client(relay.address) as sender,
        ):
            talk(client, server)
            ending.shutdown(socket.SHUT_WR)
            assert half.recv(1) == b""
            sender.send(b"hello")
            echo(datagrams)
            assert sender.recv(100) == b"hello"
            began = time.monotonic()
            clock.jump(jump)
            with flow(relay.address, target):
                newest = max(shown["started"] for shown in relay.flows())
                assert abs(newest - (time.time() + jump)) < 60, "the relay does see the jump"
            wait_until(lambda: len(relay.flows()) == 3)
            talk(client, server)
            assert {shown["state"] for shown in relay.flows()} >= {"half_closed"}
            assert all(0 <= shown["duration"] < 60 for shown in relay.flows())
            assert is_reset(client)
            assert is_reset(ending)
            wait_until(lambda: relay.flows() == [], 10)
            assert 1.5 < time.monotonic() - began < 8
    reasons = sorted(record["reason"] for record in relay.wait_ended(4))
    assert {"expired", "idle_timeout", "linger_timeout"} <= set(reasons)
    assert all(0 <= record["duration"] < 60 for record in relay.ended())


def test_a_rate_and_an_answer_go_by_time_that_passes(
    start: Start, target: Target, clock: WallClock, tmp_path: Path
) -> None:
    """An hour back would keep the rate's limit shut and the old answer alive for an hour."""
    with name_server(tmp_path, ttl=1) as names:
        names.answer({"db.test": ["127.0.0.2"]})
        words = ("--dns-servers", names.address, "--max-connection-rate", "5")
        remote = f"db.test:{target.port}"
        relay = start("-l", "127.0.0.1:0", "-r", remote, *words, **clock.environment)

        def served() -> bool:
            """By the target of the new answer."""
            target.listener.settimeout(0.1)
            try:
                with connect(relay.address), target.accept():
                    return True
            except (TimeoutError, ConnectionResetError):
                return False

        wait_until(lambda: not served())
        clock.jump(-HOUR)
        names.answer({"db.test": ["127.0.0.1"]})
        wait_until(served, 10, "the new answer is followed, and the rate lets in")


@pytest.mark.root
def test_a_machine_that_has_been_up_for_years(start: Start, target: Target) -> None:
    """A clock that has counted for long, as on machines that never sleep."""
    years = str(20 * 365 * 24 * HOUR)
    before = ("unshare", "--time", "--fork", "--kill-child", "--monotonic", years)
    words = ("--idle-timeout", "1", "--max-connection-rate", "100")
    relay = start("-l", "127.0.0.1:0", "-r", target.address, *words, before=before)
    assert os.readlink(f"/proc/{relay.pid}/ns/time") != os.readlink("/proc/self/ns/time")
    with flow(relay.address, target) as (client, server):
        talk(client, server)
        began = time.monotonic()
        assert is_reset(client)
        assert 0.8 < time.monotonic() - began < 5
    record = relay.end_of_flow()
    assert record["reason"] == "idle_timeout"
    assert 0.8 < record["duration"] < 5
