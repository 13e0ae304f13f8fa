"""What is said when a running program can't be asked."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from qanat.errors import ControlError
from qanat.observe.control_client import ControlClient


def test_a_path_where_nobody_is(tmp_path: Path) -> None:
    leftover = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(leftover))
    for path in (tmp_path / "none.sock", leftover):
        with (
            ControlClient(path) as client,
            pytest.raises(ControlError, match="no relay is running there"),
        ):
            client.get("/flows")


def test_something_that_is_no_relay(tmp_path: Path) -> None:
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        answer = threading.Thread(target=_answer_nonsense, args=(listener,))
        answer.start()
        with ControlClient(path, timeout=5) as client, pytest.raises(ControlError) as raised:
            client.get("/flows")
        answer.join(5)
    assert raised.value.code == "answer"
    assert str(path) in str(raised.value)


def _answer_nonsense(listener: socket.socket) -> None:
    accepted, _ = listener.accept()
    with accepted:
        accepted.recv(1000)
        accepted.sendall(b"220 mail.example.com ESMTP\r\n\r\n")


def test_a_stuck_program_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "stuck.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with (
            ControlClient(path, timeout=0.1) as client,
            pytest.raises(ControlError, match="no answer in time"),
        ):
            client.get("/flows")
