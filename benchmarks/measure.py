"""What a process tree uses, read from ``/proc``, and the statistics of repeated measurements.

Knows nothing of relays or loads. CPU time comes from the kernel's clock of each process: the sum of
user and system time over all its threads, dead ones included, to the nanosecond, where the
same numbers in ``/proc/PID/stat`` are rounded to hundredths of a second.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Bystanders",
    "ProcessStat",
    "cpu_seconds",
    "descriptors",
    "interleaved",
    "median",
    "paired_ratio",
    "parse_busy",
    "parse_pss",
    "parse_stat",
    "pss_bytes",
    "spread",
    "threads",
    "tree",
]

_TICK = 1 / os.sysconf("SC_CLK_TCK")
# linux/posix-timers.h: the clock that counts a process's scheduled time (CPUCLOCK_SCHED).
_CPU_CLOCK_OF_PROCESS = 2


@dataclass(frozen=True, slots=True)
class ProcessStat:
    parent: int
    own: float
    """User and system seconds of the process, to the tick."""
    reaped: float
    """The same of its children that have ended and were waited for."""


def parse_stat(text: str) -> ProcessStat:
    """``/proc/PID/stat``; the program's name stands in parentheses and may hold some itself."""
    fields = text[text.rindex(")") + 2 :].split()
    user, system, reaped_user, reaped_system = (int(field) for field in fields[11:15])
    return ProcessStat(
        parent=int(fields[1]),
        own=(user + system) * _TICK,
        reaped=(reaped_user + reaped_system) * _TICK,
    )


def parse_pss(text: str) -> int:
    """Bytes of the ``Pss:`` line of ``/proc/PID/smaps_rollup``."""
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no Pss line")


def tree(root: int) -> list[int]:
    """The process and its descendants that are alive now."""
    found = [root]
    for pid in found:
        for task in _list(Path(f"/proc/{pid}/task")):
            try:
                children = Path(f"/proc/{pid}/task/{task}/children").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            found.extend(int(child) for child in children.split())
    return found


def cpu_seconds(root: int) -> float:
    """CPU time used so far by the tree, ended and reaped children included."""
    total = 0.0
    for pid in tree(root):
        try:
            clock = (~pid << 3) | _CPU_CLOCK_OF_PROCESS
            total += time.clock_gettime(clock)
            total += parse_stat(Path(f"/proc/{pid}/stat").read_text()).reaped
        except OSError:
            continue  # ended between listing and reading; its parent has reaped its time
    return total


def pss_bytes(root: int) -> int:
    """Memory of the tree, shared pages counted in proportion."""
    total = 0
    for pid in tree(root):
        try:
            total += parse_pss(Path(f"/proc/{pid}/smaps_rollup").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def parse_busy(text: str) -> float:
    """Seconds that all processors together were busy, from ``/proc/stat``.

    Interrupts belong to it: most of the time in them is spent inside of system calls, on loopback,
    and is counted for the process as well."""
    user, nice, system, _idle, _wait, hard, soft = (int(field) for field in text.split()[1:8])
    return (user + nice + system + hard + soft) * _TICK


class Bystanders:
    """How much of the machine others use meanwhile: all but this process and its children."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._before = self._others()

    @staticmethod
    def _others() -> float:
        return parse_busy(Path("/proc/stat").read_text()) - cpu_seconds(os.getpid())

    def share(self) -> float:
        """Of all processors, since this was made."""
        seconds = (time.perf_counter() - self._started) * (os.cpu_count() or 1)
        return max(0.0, self._others() - self._before) / seconds


def descriptors(root: int) -> int:
    return sum(len(_list(Path(f"/proc/{pid}/fd"))) for pid in tree(root))


def threads(root: int) -> int:
    return sum(len(_list(Path(f"/proc/{pid}/task"))) for pid in tree(root))


def _list(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, ProcessLookupError):
        return []


def interleaved(names: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """A B C, B C A, C A B: what the machine does meanwhile hits all alike, and none is always
    first."""
    for number in range(rounds):
        shift = number % max(1, len(names))
        for name in (*names[shift:], *names[:shift]):
            yield number, name


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float]) -> float:
    """Half the range, as a fraction of the median: how far the rounds were apart."""
    middle = median(values)
    return (max(values) - min(values)) / 2 / abs(middle) if middle else 0.0


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios within each round: what slows a whole round cancels out.

    A peer that failed in some round leaves lists of different lengths; then the ratio of medians is
    what can be said."""
    if len(ours) == len(theirs):
        pairs = list(zip(ours, theirs, strict=True))
        if all(other for _, other in pairs):
            return median([mine / other for mine, other in pairs])
    other = median(theirs)
    return median(ours) / other if other else float("inf")
