"""Exit codes, streams and the help, as a shell sees them."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from qanat.cli import main as entry
from qanat.cli.commands import SECTIONS
from qanat.errors import ConfigError, ControlError, Problem
from tests.cli.running import Run

COMMANDS = [entry.name for entries in SECTIONS.values() for entry in entries]


def test_without_words_the_help_is_an_error(qanat: Run) -> None:
    ran = qanat()
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("Usage: qanat COMMAND")


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_a_success(qanat: Run, word: str) -> None:
    ran = qanat(word)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Usage: qanat COMMAND")


@pytest.mark.parametrize("word", ["-v", "--version"])
def test_version_is_one_line(qanat: Run, word: str) -> None:
    ran = qanat(word)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(ran.stdout.splitlines()) == 1
    assert ran.stdout.startswith("qanat ")


@pytest.mark.parametrize("words", [[], *[[name] for name in COMMANDS]], ids=" ".join)
def test_help_is_readable_at_80_columns(qanat: Run, words: list[str]) -> None:
    ran = qanat(*words, "--help", COLUMNS="200")
    assert ran.returncode == 0, ran.stderr
    assert [line for line in ran.stdout.splitlines() if len(line) > 80] == []
    assert "Show this message and exit" in ran.stdout


def test_the_overview_lists_every_command_under_its_heading(qanat: Run) -> None:
    text = qanat("--help").stdout
    for section, entries in SECTIONS.items():
        assert f"\n{section}:\n" in text
        for listed in entries:
            assert f"\n  {listed.name} " in text
            assert listed.summary in text


def test_an_unknown_command_suggests_the_nearest(qanat: Run) -> None:
    ran = qanat("relai")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.splitlines() == [
        "qanat: no such command: relai; did you mean 'relay'?",
        "qanat: try 'qanat --help'",
    ]


def test_an_unknown_option_is_a_wrong_use(qanat: Run) -> None:
    ran = qanat("check", "--jsn", "x")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("qanat: no such option")
    assert "qanat: try 'qanat check --help'" in ran.stderr


def test_a_reader_that_has_enough_is_no_failure() -> None:
    """What ``qanat schema | head -1`` does: the reader is gone before we write."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "qanat", "completion", "bash"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=20,
        )
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_full_disk_is_a_failure() -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "qanat", "completion", "bash"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=20,
        )
    assert (ran.returncode, ran.stderr) == (1, "qanat: No space left on device\n")


def ending(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """The exit code when a command ends in ``error``."""

    @click.command("qanat")
    def failing() -> None:
        raise error

    monkeypatch.setattr(entry, "cli", failing)
    return entry.main([], program="qanat")


def test_each_problem_of_a_configuration_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = ConfigError(
        [
            Problem("must be true or false", file="a.toml", line=3, column=1, key="network.no_tcp"),
            Problem("is missing", key="endpoints[0].remote"),
        ]
    )
    assert ending(monkeypatch, error) == 1
    assert capsys.readouterr().err.splitlines() == [
        "qanat: a.toml:3:1: network.no_tcp: must be true or false",
        "qanat: endpoints[0].remote: is missing",
    ]


def test_our_errors_are_a_line_and_not_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(monkeypatch, ControlError("nothing runs here")) == 1
    assert capsys.readouterr().err == "qanat: nothing runs here\n"


def test_an_error_of_the_system_names_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(monkeypatch, PermissionError(13, "Permission denied", "/etc/x")) == 1
    assert capsys.readouterr().err == "qanat: /etc/x: Permission denied\n"


def test_an_engine_that_is_not_built_is_said_plainly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = ModuleNotFoundError("No module named 'qanat._engine'", name="qanat._engine")
    assert ending(monkeypatch, missing) == 1
    assert "the engine is not built" in capsys.readouterr().err


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        ending(monkeypatch, ZeroDivisionError())


def test_ctrl_c_ends_with_130_and_without_a_traceback(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.toml"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "qanat", "check", str(fifo)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Opening our end returns once the program has opened its own: it reads now.
    with process, fifo.open("w"):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "")


def on_a_terminal(*words: str, **env: str) -> str:
    """What the program writes on stderr when that is a terminal."""
    reading, terminal = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "qanat", *words],
            env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, **env},
            stdout=subprocess.DEVNULL,
            stderr=terminal,
            check=False,
            timeout=20,
        )
        return os.read(reading, 65536).decode()
    finally:
        os.close(terminal)
        os.close(reading)


def test_colour_is_for_terminals_alone(qanat: Run) -> None:
    assert "\x1b[31m" in on_a_terminal("relai", TERM="xterm")
    assert "\x1b" not in qanat("relai").stderr


def test_no_colour_is_honoured() -> None:
    assert "\x1b" not in on_a_terminal("relai", TERM="xterm", NO_COLOR="1")
    assert "\x1b" not in on_a_terminal("relai", TERM="dumb")
