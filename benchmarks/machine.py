"""What the numbers were measured on: machine, kernel, versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.peers import Peer

__all__ = ["describe", "parse_cpu_model"]


def parse_cpu_model(text: str) -> str:
    """The model named in ``/proc/cpuinfo``."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()


def describe(peers: Sequence[Peer]) -> dict[str, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{parse_cpu_model(Path('/proc/cpuinfo').read_text())}, "
        f"{os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    facts.update(
        {
            peer.name: peer.version()
            for peer in peers
            if not peer.missing() and peer.name != "direct"
        }
    )
    return facts
