"""The program as a user has it: words go in, an exit code and two streams come out."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

__all__ = ["Ran", "Run"]

Ran = subprocess.CompletedProcess[str]
Run = Callable[..., Ran]

# What the person who runs the tests has set must not decide what they find.
_FOREIGN = frozenset({"REALM_CONF", "NO_COLOR", "_QANAT_COMPLETE", "_REALM_COMPLETE"})


def _run(start: list[str], words: tuple[str, ...], env: Mapping[str, str]) -> Ran:
    inherited = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    return subprocess.run(
        [*start, *words],
        env={**inherited, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


@pytest.fixture
def qanat() -> Run:
    """Runs ``qanat WORDS...``."""

    def run(*words: str, **env: str) -> Ran:
        return _run([sys.executable, "-m", "qanat"], words, env)

    return run


@pytest.fixture
def realm(tmp_path: Path) -> Run:
    """Runs ``realm WORDS...``: a link to the program as it is installed."""
    script = tmp_path / "installed" / "qanat"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom qanat.cli.main import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    link = tmp_path / "realm"
    link.symlink_to(script)

    def run(*words: str, **env: str) -> Ran:
        return _run([str(link)], words, env)

    return run
