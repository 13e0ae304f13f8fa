"""``qanat proxy`` as a process, and curl as its client."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.relay_process import RelayProcess

__all__ = ["address", "curl", "proxy"]


def proxy(folder: Path, *words: str) -> RelayProcess:
    return RelayProcess(folder, *words, command="proxy")


def address(process: RelayProcess, form: str = "mixed") -> str:
    for endpoint in process.ask("/endpoints"):
        if endpoint["endpoint"].startswith(form):
            return str(endpoint["listen"])
    raise AssertionError(f"no {form}")


def curl(via: str, url: str, *words: str) -> tuple[int, str, str]:
    """Exit code, what came, and what curl says of it."""
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "20", "-x", via, url, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
