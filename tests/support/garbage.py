"""Garbage collection as a test wants it."""

from __future__ import annotations

import gc
import warnings

__all__ = ["collect_what_others_left"]


def collect_what_others_left() -> None:
    """So that a test which collects hears of its own garbage alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
