"""``qanat version`` on whole and on broken installations."""

import json
import platform
import sys

import pytest

from qanat.cli import version
from tests.cli.running import Run


def test_json_has_every_part(qanat: Run) -> None:
    ran = qanat("version", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    found = json.loads(ran.stdout)
    assert {"version", "python", "system", "engine", "abilities"} <= found.keys()
    assert platform.python_version() in found["python"]
    assert {"version", "profile"} <= found["engine"].keys()
    assert "splice" in found["abilities"]


def test_text_has_a_line_for_each_part(qanat: Run) -> None:
    ran = qanat("version")
    assert ran.returncode == 0
    first = [line.split()[0] for line in ran.stdout.splitlines()]
    assert first == ["qanat", "engine", "python", "system", "abilities"]


def test_an_engine_that_is_not_built_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("qanat._engine", raising=False)
    monkeypatch.setitem(sys.modules, "qanat._engine", None)
    assert version.command.main([], standalone_mode=False) == 0
    text = capsys.readouterr().out
    assert "engine     the engine is not built" in text
    assert "abilities" not in text


def test_the_package_is_found_or_the_engine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert version.package_version() != "unknown"
