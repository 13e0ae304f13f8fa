"""The control socket: where it stands and who may use it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from qanat.errors import ControlError
from qanat.process.control_socket import ControlSocket


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "run"
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(directory))
    return directory


def test_directory_and_socket_are_for_us_alone(place: Path) -> None:
    before = os.umask(0)
    try:
        control = ControlSocket()
    finally:
        os.umask(before)
    assert control.path == place / "control.sock"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE(control.path.stat().st_mode) == 0o600
    control.remove()
    assert list(place.iterdir()) == []


def test_a_leftover_socket_is_replaced(place: Path) -> None:
    first = ControlSocket()
    first.listener.close()
    second = ControlSocket()
    assert second.path == first.path
    first.remove()
    assert second.path.exists(), "what is not ours any more is left alone"
    second.remove()


def test_beside_a_living_one_another_name_is_taken(place: Path) -> None:
    first, second = ControlSocket(), ControlSocket()
    assert second.path == place / f"control-{os.getpid()}.sock"
    first.remove()
    second.remove()


def test_a_given_path_in_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.sock"
    first = ControlSocket(path)
    with pytest.raises(ControlError, match="another program uses it"):
        ControlSocket(path)
    first.remove()
    path.write_text("precious")
    with pytest.raises(ControlError, match="no socket"):
        ControlSocket(path)
    assert path.read_text() == "precious"


def test_a_path_that_can_not_be_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r"missing.*No such file"):
        ControlSocket(tmp_path / "missing" / "x.sock")
    with pytest.raises(ControlError, match="too long"):
        ControlSocket(tmp_path / ("x" * 200))


def test_a_directory_that_others_may_write_is_not_trusted(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(ControlError, match="writable for others"):
        ControlSocket()
