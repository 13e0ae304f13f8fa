"""The files of packaging/: units that systemd accepts, a configuration that loads, one image."""

import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from qanat.config.load import load
from tests.docs.pages import ROOT
from tests.docs.test_commands import mistakes

__all__: list[str] = []

PACKAGING = ROOT / "packaging"
COMMAND = "/opt/qanat/bin/qanat"


def unit(name: str) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # the documented way
    parser.read(PACKAGING / name)
    return parser


@pytest.fixture
def installed(tmp_path: Path) -> list[Path]:
    """The units, with a program in them that exists here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    paths = []
    for name in ("qanat.service", "qanat.socket"):
        path = tmp_path / name
        path.write_text((PACKAGING / name).read_text().replace(COMMAND, sys.executable))
        paths.append(path)
    return paths


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""},
    )


def test_systemd_accepts_the_units(installed: list[Path]) -> None:
    run = analyze("verify", "--man=no", *installed)
    named = [line for line in (run.stdout + run.stderr).splitlines() if "qanat" in line]
    assert (run.returncode, named) == (0, [])


def test_the_service_is_hardened(installed: list[Path]) -> None:
    """systemd's own score, from 10 (anything goes) to 0; ours may only go down."""
    run = analyze("security", "--offline=true", "--no-pager", installed[0])
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", run.stdout)
    assert score is not None, run.stdout + run.stderr
    assert float(score[1]) <= 1.7


def test_the_service_calls_commands_that_exist() -> None:
    service = unit("qanat.service")["Service"]
    for key in ("ExecStart", "ExecReload"):
        words = service[key].split()
        assert words[0] == COMMAND
        assert list(mistakes(words)) == []
    assert service["Type"] == "notify"


def test_stopping_has_time_to_drain() -> None:
    drain = load(PACKAGING / "relay.toml").config.drain
    service = unit("qanat.service")["Service"]
    assert float(service["TimeoutStopSec"]) >= drain + 10
    assert float(service["WatchdogSec"]) >= 10


def test_the_first_configuration_loads_and_has_the_sockets_of_the_socket_unit() -> None:
    loaded = load(PACKAGING / "relay.toml")
    assert loaded.warnings == []
    assert unit("qanat.socket")["Socket"]["ListenStream"] in {
        endpoint.listen for endpoint in loaded.config.endpoints
    }


def test_the_image_is_built_of_what_is_here() -> None:
    text = (PACKAGING / "Containerfile").read_text()
    copied = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    assert copied
    missing = [name for line in copied for name in line.split() if not (ROOT / name).exists()]
    assert missing == []
    assert len(re.findall(r"^FROM ", text, re.MULTILINE)) == 2
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)
    command = re.search(r'^CMD \["(.+)"\]$', text, re.MULTILINE)
    assert command is not None
    assert list(mistakes(["qanat", *command[1].split('", "')])) == []


def test_the_log_is_opened_anew_after_rotation() -> None:
    text = (PACKAGING / "qanat.logrotate").read_text()
    assert "--signal=USR1 qanat.service" in text
    assert unit("qanat.service")["Service"]["LogsDirectory"] == "qanat"
