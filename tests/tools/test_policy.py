"""The rules of tests/conftest.py seen from outside: each with a small suite of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

__all__: list[str] = []

CONFTEST = Path(__file__).parent.parent / "conftest.py"


def suite(folder: Path, text: str, *, ci: bool) -> subprocess.CompletedProcess[str]:
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "test_it.py").write_text(text)
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    if ci:
        environment["CI"] = "true"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "text",
    [
        "import pytest\ndef test_a(): pytest.skip('no such thing')\n",
        "import pytest\n@pytest.mark.skipif(True, reason='no such thing')\ndef test_a(): pass\n",
        "import pytest\npytest.skip('no such thing', allow_module_level=True)\n",
        "import pytest\npytest.importorskip('no_such_thing')\n",
    ],
    ids=["in the test", "marked", "module", "import"],
)
def test_a_skip_is_a_failure_in_ci_alone(tmp_path: Path, text: str) -> None:
    at_home = suite(tmp_path, text, ci=False)
    assert "1 skipped" in at_home.stdout, at_home.stdout

    in_ci = suite(tmp_path, text, ci=True)
    assert in_ci.returncode != 0
    assert "in CI no test may skip" in in_ci.stdout
    assert "no such thing" in in_ci.stdout or "no_such_thing" in in_ci.stdout


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    text = "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_a(): assert False\n"
    assert suite(tmp_path, text, ci=True).returncode == 0


def test_a_process_left_behind_fails_its_test(tmp_path: Path) -> None:
    text = (
        "import subprocess\n"
        "kept = []\n"
        "def test_leaves():\n"
        # Waits in the shell itself: a process that is just replacing itself has no command line.
        "    command = ['sh', '-c', 'echo up; read never_told']\n"
        "    pipe = subprocess.PIPE\n"
        "    kept.append(subprocess.Popen(command, stdin=pipe, stdout=pipe))\n"
        "    kept[0].stdout.readline()\n"
        "def test_innocent(): pass\n"
        "def test_end():\n"
        "    kept[0].kill()\n"
        "    kept[0].wait()\n"
        "    kept[0].stdout.close()\n"
        "    kept[0].stdin.close()\n"
    )
    run = suite(tmp_path, text, ci=False)
    assert "ERROR test_it.py::test_leaves" in run.stdout, run.stdout
    assert "read never_told" in run.stdout, run.stdout
    assert "3 passed, 1 error" in run.stdout
