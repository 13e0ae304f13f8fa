"""What the readers of all formats raise. Knows no format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["DEEPEST", "TOO_DEEP", "SyntaxProblem", "SyntaxProblems"]


@dataclass(frozen=True, slots=True)
class SyntaxProblem:
    message: str
    line: int | None = None
    column: int | None = None
    key: str | None = None
    hint: str | None = None


DEEPEST: Final = 100
"""Tables and lists within each other. A configuration needs five."""

TOO_DEEP: Final = SyntaxProblem("tables and lists are nested too deeply")


class SyntaxProblems(Exception):
    """A text is not of the format it should be."""

    def __init__(self, problems: Sequence[SyntaxProblem]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems: tuple[SyntaxProblem, ...] = tuple(problems)
