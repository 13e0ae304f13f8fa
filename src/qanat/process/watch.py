"""Watching configuration files for changes.

By looking at them twice a second: it works on every file system, through links and editors that
replace files, and costs a few system calls. Knows paths, not what is in them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["EVERY", "QUIET", "Fingerprint", "fingerprint", "watch"]

EVERY: Final = 0.5
QUIET: Final = 0.3
"""How long nothing must change before a change counts as finished, in seconds."""

Fingerprint = Mapping[str, tuple[int, int, int, int]]
"""Of each file: device, inode, size and time of change."""


def fingerprint(paths: Iterable[Path]) -> Fingerprint:
    """What tells a change of the files, or of the files in the folders, at ``paths``."""
    seen: dict[str, tuple[int, int, int, int]] = {}
    for path in paths:
        for file in _files(path):
            try:
                found = os.stat(file)
            except OSError:
                continue
            seen[str(file)] = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return seen


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        # Hidden files are no part of a configuration; editors write theirs beside it.
        return [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return []


async def watch(
    paths: Sequence[Path],
    changed: Callable[[], object],
    *,
    known: Fingerprint,
    every: float = EVERY,
    quiet: float = QUIET,
) -> None:
    """Call ``changed`` after each change, once the writing has come to rest. Runs until cancelled.

    ``known`` is the fingerprint of what was read last, taken before it was read.
    """
    while True:
        await asyncio.sleep(every)
        found = await asyncio.to_thread(fingerprint, paths)
        if found == known:
            continue
        while True:
            await asyncio.sleep(quiet)
            again = await asyncio.to_thread(fingerprint, paths)
            if again == found:
                break
            found = again
        known = found
        if found:
            # A file that is gone for the moment is about to be replaced; nothing to read meanwhile.
            changed()
