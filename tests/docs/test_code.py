"""The code in our pages works: Python runs, configuration loads."""

import subprocess
import sys
from pathlib import Path

import pytest

from qanat.config.load import load
from qanat.config.proxy_file import load_proxy
from tests.docs.pages import PAGES, Block, blocks

__all__: list[str] = []

PYTHON = [block for page in PAGES for block in blocks(page, "python")]
TOML = [block for page in PAGES for block in blocks(page, "toml")]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_runs(block: Block, tmp_path: Path) -> None:
    """As a program of its own, with warnings as errors: a relay left open would warn."""
    program = tmp_path / "block.py"
    program.write_text(block.text)
    run = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("block", TOML, ids=str)
def test_configuration_loads(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "block.toml"
    path.write_text(block.text)
    if "proxy.md" in str(block):
        assert load_proxy(path, {}).config.mixed
        return
    loaded = load(path)
    assert loaded.warnings == []
    assert loaded.config.endpoints


def test_there_is_code_to_look_at() -> None:
    assert len(PYTHON) >= 3
    assert len(TOML) >= 3
