"""The program under both of its names."""

import sys
from pathlib import Path

import pytest

from tests.cli.running import Run

__all__: list[str] = []


@pytest.fixture
def qanat() -> Run:
    return Run()


@pytest.fixture
def realm(tmp_path: Path) -> Run:
    """A link to the program as it is installed."""
    script = tmp_path / "installed" / "qanat"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom qanat.cli.main import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    link = tmp_path / "realm"
    link.symlink_to(script)
    return Run([str(link)])
