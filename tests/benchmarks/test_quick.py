"""The whole path with the smallest load: generator, targets, rounds, table, JSON."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import generator
from benchmarks.__main__ import main
from benchmarks.failure import BenchmarkError

pytestmark = [
    pytest.mark.skipif(shutil.which("cargo") is None, reason="the generator is built with cargo"),
    # The first test builds the generator, which a busy machine does not do in seconds.
    pytest.mark.timeout(240),
]


def test_quick_run_without_any_relay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    names = ["bulk", "pingpong", "connect", "udp_blast", "udp_pingpong", "fairness"]
    names += ["socks5", "http_forward"]
    words = [*names, "--quick", "--seconds", "0.1", "--peers", "direct", "--json", str(file)]
    assert main(words) == 0
    assert "ping-pong: rate" in capsys.readouterr().out
    questions = {
        question["name"]: question for question in json.loads(file.read_text())["questions"]
    }
    assert set(questions) == set(names)
    for question in questions.values():
        assert question["failures"] == {}
        rates = [series for series in question["series"] if series["better"] == "more"]
        assert all(series["peers"]["direct"]["median"] > 0 for series in rates)


def test_unknown_names_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nonsense"]) == 1
    assert "nonsense" in capsys.readouterr().err
    assert main(["--peers", "envoy"]) == 1
    assert "envoy" in capsys.readouterr().err


@pytest.mark.parametrize("direction", ["up", "down"])
def test_bulk_compares_every_byte_when_asked(direction: str) -> None:
    role = "discard" if direction == "up" else "source"
    with generator.targets(role, verify=1) as addresses:
        result = generator.client(
            "bulk",
            addresses[role],
            direction=direction,
            connections=3,
            verify=1,
            seconds=0.1,
            warm_up=0,
        )
    assert result["total"] >= result["bytes"] > 0
    assert result["least"] > 0


def test_trains_of_datagrams_are_counted_one_by_one() -> None:
    with generator.targets("udp-sink", gro=1) as addresses:
        sink = addresses["udp-sink"]
        result = generator.client(
            "udp-blast", sink, sink=sink, rate=20_000, flows=2, gso=1, seconds=0.1, warm_up=0
        )
    assert result["received"] == result["sent"] - result["lost"] > 1_000
    assert result["late"] == 0


def test_idle_connections_are_held() -> None:
    with generator.targets("echo") as addresses, generator.holding(addresses["echo"], 20):
        pass


def test_a_load_that_fails_says_why() -> None:
    with pytest.raises(BenchmarkError, match="refused"):
        generator.client("ping-pong", "127.0.0.1:1", seconds=0.1)
    with pytest.raises(BenchmarkError, match="--sise"):
        generator.client("ping-pong", "127.0.0.1:1", sise=3)
