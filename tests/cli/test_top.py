"""The live table: its columns, and its keys on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qanat.cli.rates import Row
from qanat.cli.top import _cells, fitting
from tests.support.controlled import FakeRelay, controlled
from tests.support.wait import wait_until

ROW = ["1099511627777", "tcp", "192.0.2.7:40001", "example.com:443", "open", "1.0 KiB/s"]
ROW += ["2.0 KiB/s", "3.0 MiB", "4.0 MiB", "12m04s", "0.01s"]


@pytest.mark.parametrize(("width", "columns"), [(200, 11), (100, 8), (60, 4), (10, 4)], ids=str)
def test_columns_give_way_on_narrow_terminals(width: int, columns: int) -> None:
    assert len(fitting([ROW], width)) == columns
    assert 0 in fitting([ROW], width), "without the id a flow can't be killed"


def test_the_user_is_shown_with_the_client() -> None:
    flow = {"id": 1, "protocol": "tcp", "client": "192.0.2.7:1", "target": "t:80", "state": "open"}
    flow |= {"bytes_up": 0, "bytes_down": 0, "duration": 1.0, "idle": 0.0}
    assert _cells(Row(flow, 0.0, 0.0), False)[2] == "192.0.2.7:1"
    assert _cells(Row(flow | {"user": "alice\n"}, 0.0, 0.0), False)[2] == r"192.0.2.7:1 (alice\n)"


def test_no_flows_fit_anywhere() -> None:
    assert len(fitting([], 200)) == 11


class Terminal:
    """``qanat top`` with a terminal of its own."""

    def __init__(self, control: Path) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (20, 120))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qanat", "top", "--interval", "0.2", "--control", str(control)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.shown = ""
        os.set_blocking(self.master, False)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def shows(self, text: str) -> bool:
        try:
            self.shown += os.read(self.master, 65536).decode()
        except BlockingIOError:
            time.sleep(0.01)
        return text in self.shown

    def press(self, keys: bytes) -> None:
        self.shown = ""
        os.write(self.master, keys)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    relay = FakeRelay()
    relay.grows = 4096
    with controlled(tmp_path / "control.sock", relay), Terminal(tmp_path / "control.sock") as made:
        yield made


def test_it_obeys_keys_and_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    wait_until(lambda: terminal.shows("2 flows"))
    wait_until(lambda: terminal.shows("192.0.2.7:40002"))
    terminal.press(b"s")
    wait_until(lambda: terminal.shows("by up"))
    terminal.press(b"r")
    wait_until(lambda: terminal.shows("reversed"))
    terminal.press(b"p")
    wait_until(lambda: terminal.shows("PAUSED"))
    terminal.press(b"q")
    wait_until(lambda: terminal.process.poll() is not None or terminal.shows("\0never"))
    assert terminal.process.returncode == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before
    terminal.shows("")
    assert "\x1b[?1049l" in terminal.shown, "the alternative screen is left"


def test_it_ends_when_the_relay_does(tmp_path: Path) -> None:
    with (
        controlled(tmp_path / "control.sock") as relay,
        Terminal(tmp_path / "control.sock") as terminal,
    ):
        wait_until(lambda: terminal.shows("2 flows"))
        relay.ended.set()
        wait_until(lambda: terminal.process.poll() is not None or terminal.shows("\0never"))
        assert terminal.process.returncode == 1
        terminal.shows("")
        assert "no relay is running there" in terminal.shown
