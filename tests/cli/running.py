"""Runs the program as a user does: words go in, an exit code and two streams come out."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Asked", "Ran", "Run"]

Ran = subprocess.CompletedProcess[str]

# What the person who runs the tests has set must not decide what they find.
_FOREIGN = frozenset({"REALM_CONF", "NO_COLOR", "_QANAT_COMPLETE", "_REALM_COMPLETE"})


class Run:
    """One way to start the program: ``run("check", "a.toml", NO_COLOR="1")``."""

    def __init__(self, start: Sequence[str] = (sys.executable, "-m", "qanat")) -> None:
        self.start = list(start)

    def __call__(self, *words: str, cwd: Path | None = None, **env: str) -> Ran:
        inherited = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        return subprocess.run(
            [*self.start, *words],
            cwd=cwd,
            env={**inherited, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )


@dataclass
class Asked:
    """What the program was asked to run."""

    config: Any = None
    warnings: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
