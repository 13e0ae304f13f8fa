"""``qanat schema`` prints what is published."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

from tests.cli.running import Run

PUBLISHED = Path(__file__).parents[2] / "docs" / "schema.json"


def test_it_is_the_published_one(qanat: Run) -> None:
    ran = qanat("schema")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == PUBLISHED.read_text(encoding="utf-8")
    assert "endpoints" in json.loads(ran.stdout)["properties"]


def test_a_reader_may_stop_early() -> None:
    line = f"set -o pipefail; {shlex.quote(sys.executable)} -m qanat schema | head -n 1"
    ran = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False, timeout=20
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "{\n", "")
