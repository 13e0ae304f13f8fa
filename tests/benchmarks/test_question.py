from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from benchmarks import measure
from benchmarks.failure import BenchmarkError
from benchmarks.peers import Peer, Relaying
from benchmarks.question import Absolute, Question, Ratio, Sample, Series, Setting, ask

COST = Series("cost", "s", "less")
RATE = Series("rate", "1/s", "more")


@dataclass(frozen=True)
class Named:
    name: str

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return "1"

    @contextmanager
    def relay(self, targets: Mapping[str, str]) -> Iterator[Relaying]:
        yield Relaying(targets)


def _question(values: Mapping[str, list[float]], **options: bool) -> Question:
    @contextmanager
    def open_peer(peer: Peer, setting: Setting) -> Iterator[Sample]:
        numbers = iter(values[peer.name])

        def sample() -> dict[str, float]:
            number = next(numbers)
            if number < 0:
                raise BenchmarkError("broken")
            return {"cost": number}

        yield sample

    return Question(
        name="q",
        text="",
        series=(COST,),
        bars=(Ratio("cost", 0.5, ("nginx",)),),
        peers=("qanat", "nginx"),
        open=open_peer,
        **options,
    )


def test_the_first_sample_is_thrown_away() -> None:
    peers = [Named("qanat"), Named("nginx")]
    question = _question({"qanat": [99, 1, 1], "nginx": [1, 4, 2]})
    outcome = ask(question, peers, Setting(rounds=2, patience=0))
    assert outcome.samples == {"cost": {"qanat": [1, 1], "nginx": [4, 2]}}
    (verdict,) = outcome.verdicts()
    assert verdict.meets is True
    assert verdict.value == "0.38 x"


@pytest.mark.parametrize(("patience", "expected"), [(0.0, 1.0), (60.0, 3.0)])
def test_a_disturbed_sample_is_taken_again(
    monkeypatch: pytest.MonkeyPatch, patience: float, expected: float
) -> None:
    shares = iter([0.5, 0.4, 0.05])

    class Noisy:
        def share(self) -> float:
            return next(shares)

    monkeypatch.setattr(measure, "Bystanders", Noisy)
    question = _question({"qanat": [1, 2, 3]}, warm=False)
    outcome = ask(question, [Named("qanat")], Setting(rounds=1, patience=patience))
    assert outcome.samples["cost"]["qanat"] == [expected]
    assert outcome.bystanders == [0.05 if patience else 0.5]


def test_a_peer_that_fails_is_left_out_with_its_reason() -> None:
    peers = [Named("qanat"), Named("nginx")]
    question = _question({"qanat": [1, 1], "nginx": [4, -1]}, warm=False)
    outcome = ask(question, peers, Setting(rounds=2, patience=0))
    assert outcome.failures == {"nginx": "broken"}
    assert outcome.samples["cost"]["qanat"] == [1, 1]


@pytest.mark.parametrize(
    ("series", "factor", "ours", "meets"),
    [
        (COST, 0.5, 1.0, True),
        (COST, 0.4, 1.0, False),
        (RATE, 1.2, 5.0, True),
        (RATE, 1.2, 4.0, False),
    ],
)
def test_ratio_is_against_the_best(series: Series, factor: float, ours: float, meets: bool) -> None:
    bar = Ratio(series.name, factor, ("nginx", "haproxy"))
    samples = {"qanat": [ours], "nginx": [2.0], "haproxy": [4.0]}
    verdict = bar.judge(series, samples)
    assert verdict.meets is meets
    assert ("nginx" if series is COST else "haproxy") in verdict.value


def test_without_a_peer_nothing_is_claimed() -> None:
    verdict = Ratio("cost", 0.5, ("nginx", "haproxy")).judge(COST, {"qanat": [1], "nginx": [9]})
    assert verdict.meets is None
    assert Absolute("cost", 5).judge(COST, {}).meets is None


def test_absolute_bars() -> None:
    assert Absolute("cost", 5).judge(COST, {"qanat": [9, 5, 1]}).meets is True
    assert Absolute("cost", 5).judge(COST, {"qanat": [6]}).meets is False
    assert Absolute("rate", 5).judge(RATE, {"qanat": [6]}).meets is True
