"""A question that a benchmark asks, its bars, and how rounds over several peers answer it.

Knows peers only by name; each question's file brings the code that takes one sample of one peer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Literal

from benchmarks import measure
from benchmarks.failure import BenchmarkError
from benchmarks.peers import Peer

__all__ = [
    "Absolute",
    "Bar",
    "Outcome",
    "Question",
    "Ratio",
    "Sample",
    "Series",
    "Setting",
    "Verdict",
    "ask",
]

OURS = "qanat"
DISTURBED = 0.1
"""Share of the machine that others may use during a sample before it is taken again."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for all questions of one run."""

    rounds: int = 5
    seconds: float = 2.0
    warm_up: float = 0.3
    patience: float = 60.0
    """Seconds, for each question, to spend on taking samples again which others' work disturbed."""
    quick: bool = False
    """Smaller numbers of connections and endpoints: to see that it works, not to measure."""


@dataclass(frozen=True, slots=True)
class Series:
    """One number that every peer gives in each round."""

    name: str
    unit: str
    better: Literal["less", "more"]
    digits: int = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    what: str
    bar: str
    value: str
    meets: bool | None
    """None: not measured, because a peer is missing."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours against the best of some peers, round by round."""

    series: str
    factor: float
    peers: tuple[str, ...]

    def judge(self, series: Series, samples: Mapping[str, Sequence[float]]) -> Verdict:
        sign = "≤" if series.better == "less" else "≥"
        names = " and ".join(self.peers)
        best_of = f"the best of {names}" if len(self.peers) > 1 else names
        bar = f"{sign} {self.factor:g} x {best_of}"
        present = [peer for peer in self.peers if samples.get(peer)]
        if not samples.get(OURS) or len(present) < len(self.peers):
            return Verdict(series.name, bar, "not measured", None)
        pick = min if series.better == "less" else max
        best = pick(present, key=lambda peer: measure.median(samples[peer]))
        ratio = measure.paired_ratio(samples[OURS], samples[best])
        meets = ratio <= self.factor if series.better == "less" else ratio >= self.factor
        value = f"{ratio:.2f} x" + (f" ({best})" if len(self.peers) > 1 else "")
        return Verdict(series.name, bar, value, meets)


@dataclass(frozen=True, slots=True)
class Absolute:
    """Ours against a number."""

    series: str
    limit: float

    def judge(self, series: Series, samples: Mapping[str, Sequence[float]]) -> Verdict:
        sign = "≤" if series.better == "less" else "≥"
        bar = f"{sign} {self.limit:g} {series.unit}".rstrip()
        if not samples.get(OURS):
            return Verdict(series.name, bar, "not measured", None)
        value = measure.median(samples[OURS])
        meets = value <= self.limit if series.better == "less" else value >= self.limit
        return Verdict(series.name, bar, f"{value:,.{series.digits}f} {series.unit}".strip(), meets)


Bar = Ratio | Absolute
Sample = Callable[[], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Question:
    name: str
    text: str
    series: tuple[Series, ...]
    bars: tuple[Bar, ...]
    peers: tuple[str, ...]
    """Those for which the question makes sense, in the order of the table."""
    open: Callable[[Peer, Setting], AbstractContextManager[Sample]]
    """Starts what one peer needs and gives the function that takes one sample of it."""
    warm: bool = True
    """Whether a first sample is thrown away."""
    rounds: int | None = None
    """Fewer rounds where a sample is slow and steady."""


@dataclass(slots=True)
class Outcome:
    question: Question
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By series, then by peer, one number a round."""
    failures: dict[str, str] = field(default_factory=dict)
    """By peer: why there is no number."""
    bystanders: list[float] = field(default_factory=list)
    """Share of the machine that others used during each sample that counts."""
    date: str = ""
    """Of the run."""

    def verdicts(self) -> list[Verdict]:
        by_name = {series.name: series for series in self.question.series}
        return [
            bar.judge(by_name[bar.series], self.samples.get(bar.series, {}))
            for bar in self.question.bars
        ]


def ask(question: Question, peers: Sequence[Peer], setting: Setting) -> Outcome:
    """Run the rounds. A peer that fails is left out from there on, with its reason."""
    outcome = Outcome(question, {series.name: {} for series in question.series})
    rounds = min(setting.rounds, question.rounds or setting.rounds)
    patience = 0.0 if setting.quick else setting.patience
    with ExitStack() as stack:
        takers: dict[str, Sample] = {}
        for peer in peers:
            try:
                taker = stack.enter_context(question.open(peer, setting))
                if question.warm and not setting.quick:
                    taker()
                takers[peer.name] = taker
            except BenchmarkError as error:
                outcome.failures[peer.name] = str(error)
        for number, name in measure.interleaved(list(takers), rounds):
            if name in outcome.failures:
                continue
            _progress(f"{question.name}: round {number + 1}/{rounds} {name}")
            try:
                sample, share, patience = _undisturbed(takers[name], patience)
            except BenchmarkError as error:
                outcome.failures[name] = str(error)
                continue
            outcome.bystanders.append(share)
            for series, value in sample.items():
                outcome.samples[series].setdefault(name, []).append(value)
    _progress("")
    for name, reason in outcome.failures.items():
        print(f"{question.name}: {name}: {reason}", file=sys.stderr)
    return outcome


def _undisturbed(taker: Sample, patience: float) -> tuple[dict[str, float], float, float]:
    """A sample during which others left the machine alone, or the least disturbed one that
    patience allows; what others used during it, and the patience that is left."""
    best: tuple[dict[str, float], float] | None = None
    while True:
        started = time.perf_counter()
        bystanders = measure.Bystanders()
        sample = taker()
        share = bystanders.share()
        if best is None or share < best[1]:
            best = (sample, share)
        if best[1] <= DISTURBED or patience <= 0:
            return *best, patience
        patience -= time.perf_counter() - started


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:60}" if text else f"\r{'':60}\r", end="", file=sys.stderr, flush=True)
