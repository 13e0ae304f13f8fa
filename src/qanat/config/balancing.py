"""The text of ``balance``: a strategy, and weights for those that want some. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, get_args

from qanat.config.words import nearest, words

__all__ = [
    "HIGHEST_WEIGHT",
    "STRATEGIES",
    "BalanceError",
    "Balancing",
    "Strategy",
    "parse_balance",
]

Strategy = Literal["off", "roundrobin", "iphash", "leastconn", "random2", "failover"]
STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)
HIGHEST_WEIGHT: Final = 255

_UNWEIGHTED: Final = frozenset({"failover"})
_WEIGHT: Final = re.compile(r"[0-9]{1,10}", re.ASCII)


class BalanceError(ValueError):
    """A text is no way to balance. ``hint`` says what would be."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Balancing:
    strategy: Strategy = "off"
    weights: tuple[int, ...] = ()
    """One for each remote in their order; empty makes all equal."""

    def __str__(self) -> str:
        if not self.weights:
            return self.strategy
        return f"{self.strategy}: {', '.join(str(weight) for weight in self.weights)}"

    def check(self, remotes: int) -> None:
        """Raise a BalanceError when there is not one weight for each of the remotes."""
        # realm reads weights after off, and nobody looks at them.
        if self.strategy == "off" or not self.weights or len(self.weights) == remotes:
            return
        count = len(self.weights)
        raise BalanceError(
            f"{count} {'weight' if count == 1 else 'weights'} for {remotes} "
            f"{'remote' if remotes == 1 else 'remotes'}",
            "one for remote and one for each of extra_remotes, or none at all",
        )


@lru_cache(maxsize=1024)
def parse_balance(text: str) -> Balancing:
    """``roundrobin: 4, 2, 1``, or a strategy alone, which makes all remotes equal."""
    name, colon, rest = text.partition(":")
    strategy = name.strip()
    if not strategy:
        what = "the strategy before the colon is missing" if colon else "empty"
        raise BalanceError(what, f"one of {words(STRATEGIES)}")
    known = next((word for word in STRATEGIES if word == strategy), None)
    if known is None:
        meant = nearest(strategy, STRATEGIES)
        raise BalanceError(
            f'"{strategy}" is not a balancing strategy',
            f"did you mean {meant}?" if meant else f"one of {words(STRATEGIES)}",
        )
    if not rest.strip():
        return Balancing(known)
    if known in _UNWEIGHTED:
        raise BalanceError(f"{known} has no weights: the order of the remotes counts", known)
    weights = tuple(_weight(part.strip()) for part in rest.split(","))
    if known != "off" and not any(weights):
        raise BalanceError("all weights are 0: no remote would get a flow", "at least one above 0")
    return Balancing(known, weights)


def _weight(text: str) -> int:
    if text == "":
        raise BalanceError("a weight is missing", "numbers between commas, as 4, 2, 1")
    if not _WEIGHT.fullmatch(text) or int(text) > HIGHEST_WEIGHT:
        raise BalanceError(f'"{text}" is not a weight', f"a number from 0 to {HIGHEST_WEIGHT}")
    return int(text)
