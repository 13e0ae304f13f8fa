"""The commands that ask a running relay, as a user calls them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from qanat.errors import ConfigError, Problem
from qanat.relay.difference import Report
from tests.cli.running import Ran, Run
from tests.support.controlled import FakeRelay, controlled, flow


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def relay(place: Path) -> Iterator[FakeRelay]:
    with controlled(place) as relay:
        yield relay


class Asking(Run):
    """A command that is told whom to ask."""

    def __init__(self, run: Run, control: Path) -> None:
        super().__init__(run.start)
        self._control = control

    def __call__(self, *words: str, cwd: Path | None = None, **env: str) -> Ran:
        return super().__call__(*words, "--control", str(self._control), cwd=cwd, **env)


@pytest.fixture
def run(qanat: Run, relay: FakeRelay, place: Path) -> Run:
    return Asking(qanat, place)


def test_flows_in_a_pipe_are_lines_oldest_first(run: Run) -> None:
    ran = run("flows")
    assert (ran.returncode, ran.stderr) == (0, "")
    head, *lines = [line.split("\t") for line in ran.stdout.splitlines()]
    assert head[:3] == ["ID", "KIND", "CLIENT"]
    assert [line[0] for line in lines] == ["1", "2"]
    assert lines[1] == [
        "2",
        "tcp",
        "192.0.2.7:40002",
        "web",
        "example.com:80",
        "198.51.100.80:80",
        "open",
        "2000",
        "200000",
        "100.000",
        "0.500",
    ]


def test_users_are_a_column_of_their_own_when_there_are_any(run: Run, relay: FakeRelay) -> None:
    first, second = relay.flows()
    first["user"] = "alice"
    relay.flows = lambda: [first, second]  # type: ignore[method-assign]
    head, *lines = [line.split("\t") for line in run("flows").stdout.splitlines()]
    assert head[-1] == "USER"
    shown = {line[0]: line[-1] for line in lines}
    assert shown == {str(first["id"]): "alice", str(second["id"]): "-"}


def test_flows_as_json_are_as_the_relay_tells_them(run: Run, relay: FakeRelay) -> None:
    assert json.loads(run("flows", "--json").stdout) == relay.flows()


def test_flows_can_be_chosen(run: Run) -> None:
    chosen = json.loads(run("flows", "--json", "--endpoint", "dns").stdout)
    assert [entry["id"] for entry in chosen] == [1]
    chosen = json.loads(run("flows", "--json", "--client", "192.0.2.7").stdout)
    assert [entry["id"] for entry in chosen] == [2]


def test_a_client_can_not_add_lines_or_columns(run: Run, relay: FakeRelay) -> None:
    relay.live = [flow(1, target="a\tb\nc")]
    assert len(run("flows").stdout.splitlines()) == 2


def test_endpoints(run: Run) -> None:
    lines = run("endpoints").stdout.splitlines()
    assert lines[1].split("\t") == [
        "web",
        "0.0.0.0:80",
        "-",
        "example.com:80",
        "1",
        "5",
        "2048",
        "3",
        "4",
        "0",
    ]
    assert json.loads(run("endpoints", "--json").stdout)[0]["refused"] == 4


def test_the_health_of_remotes(run: Run) -> None:
    header, line = run("endpoints", "--health").stdout.splitlines()
    assert header.split("\t")[:3] == ["ENDPOINT", "REMOTE", "STATE"]
    cells = line.split("\t")
    assert cells[:3] == ["web", "example.com:80", "down"]
    assert cells[3].startswith("1m")
    assert cells[4:] == ["1", "7", "2", "Connection refused"]
    # Whoever reads the other list by lines finds nothing but endpoints in it.
    assert len(run("endpoints").stdout.splitlines()) == 2


def test_kill(run: Run, relay: FakeRelay) -> None:
    ran = run("kill", "2")
    assert (ran.returncode, ran.stdout, relay.killed) == (0, "killed 2\n", [2])
    ran = run("kill", "99", "1")
    assert (ran.returncode, ran.stdout) == (1, "killed 1\n")
    assert "there is no flow 99" in ran.stderr
    assert json.loads(run("kill", "--json", "7", "2").stdout) == {"killed": [2], "missing": [7]}
    assert run("kill").returncode == 2
    assert run("kill", "abc").returncode == 2


def test_reload_tells_what_was_done(run: Run, relay: FakeRelay) -> None:
    ran = run("reload")
    assert ran.returncode == 0
    assert ran.stdout.splitlines() == [
        "1 added, 0 removed, 2 changed, 2 untouched",
        "+ new",
        "~ web",
        "! moved",
    ]
    assert json.loads(run("reload", "--json").stdout)["rebound"] == ["moved"]
    relay.outcome = Report(added=tuple(f"e{n}" for n in range(60)))
    assert run("reload").stdout.splitlines()[-1] == "+ ... and 10 more"


def test_warnings_of_a_reload_are_shown(run: Run, relay: FakeRelay) -> None:
    relay.warnings = ("workers has changed",)
    ran = run("reload")
    assert (ran.returncode, ran.stderr) == (0, "qanat: warning: workers has changed\n")


def test_a_refused_reload_tells_every_mistake(run: Run, relay: FakeRelay) -> None:
    relay.outcome = ConfigError([Problem("is wrong", file="f", line=3), Problem("so is this")])
    ran = run("reload")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.splitlines() == ["qanat: f:3: is wrong", "qanat: so is this"]


def test_stop_waits_for_the_end(run: Run, relay: FakeRelay) -> None:
    ran = run("stop")
    assert (ran.returncode, ran.stdout) == (0, "waiting for 2 flows\nstopped\n")
    assert relay.stopped == [False]


def test_stop_now(run: Run, relay: FakeRelay) -> None:
    assert json.loads(run("stop", "--now", "--json").stdout) == {"flows": 2, "stopped": True}
    assert relay.stopped == [True]


@pytest.mark.parametrize("name", ["flows", "endpoints", "top", "reload", "stop"])
def test_without_a_relay_it_is_said_plainly(qanat: Run, tmp_path: Path, name: str) -> None:
    gone = tmp_path / "gone.sock"
    ran = qanat(name, "--control", str(gone))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"qanat: {gone}: no relay is running there\n"


def test_the_environment_can_say_which(qanat: Run, relay: FakeRelay, place: Path) -> None:
    assert qanat("flows", QANAT_CONTROL=str(place)).returncode == 0


def test_top_in_a_pipe_is_one_table_sorted_by_rate(run: Run, relay: FakeRelay) -> None:
    relay.live = [flow(1, bytes_down=9_000_000, duration=1e9), flow(2, bytes_down=0, duration=1e9)]
    relay.grows = 5000
    ran = run("top", "--interval", "0.2", "--sort", "rate")
    assert ran.returncode == 0, ran.stderr
    head, *lines = [line.split("\t") for line in ran.stdout.splitlines()]
    rates = [float(line[head.index("DOWN/s")]) for line in lines]
    assert len(rates) == 2
    assert all(5_000 < rate < 30_000 for rate in rates)
    told = json.loads(run("top", "--json", "--interval", "0.2", "--sort", "bytes").stdout)
    assert [entry["id"] for entry in told] == [1, 2]
    assert told[0]["rate_down"] > 0
