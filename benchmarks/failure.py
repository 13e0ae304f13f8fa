"""The one error of the benchmarks: a measurement that could not be taken."""

from __future__ import annotations

__all__ = ["BenchmarkError"]


class BenchmarkError(Exception):
    """The message says why, in a sentence for whoever runs the benchmarks."""
