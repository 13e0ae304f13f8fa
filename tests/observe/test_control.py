"""Finding the relay to ask."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qanat.errors import ControlError
from qanat.observe import control
from qanat.observe.control import find_socket, possible_directories


@contextmanager
def listening(path: Path) -> Iterator[None]:
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        yield


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    found = [tmp_path / "own", tmp_path / "system"]
    monkeypatch.setattr(control, "possible_directories", lambda _environ=None: found)
    return found


def test_where_sockets_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert possible_directories({"XDG_RUNTIME_DIR": "/run/user/0"}) == [Path("/run/qanat")]
    given = possible_directories({"RUNTIME_DIRECTORY": "/run/a:/run/b"})
    assert given == [Path("/run/a"), Path("/run/qanat")]
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    session = possible_directories({"XDG_RUNTIME_DIR": "/run/user/7"})
    assert session == [Path("/run/user/7/qanat"), Path("/run/qanat")]
    assert possible_directories({}) == [Path("/tmp/qanat-7"), Path("/run/qanat")]  # noqa: S108


def test_the_only_living_one_is_found(places: list[Path]) -> None:
    with listening(places[1] / "control-7.sock"):
        with listening(places[0] / "control.sock"):
            pass
        (places[0] / "control-8.sock").write_text("no socket")
        assert find_socket() == places[1] / "control-7.sock"


def test_several_are_listed(places: list[Path]) -> None:
    paths = [places[0] / "control.sock", places[0] / "control-7.sock"]
    with listening(paths[0]), listening(paths[1]):
        with pytest.raises(ControlError) as raised:
            find_socket()
        assert raised.value.code == "several"
        assert all(str(path) in str(raised.value) for path in paths)
        assert "--control PATH" in str(raised.value)


def test_none_is_said_plainly(places: list[Path]) -> None:
    with pytest.raises(ControlError, match="no relay is running") as raised:
        find_socket()
    assert raised.value.code == "not_running"


def test_one_that_is_not_ours_is_said_to_be(
    places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    with listening(places[0] / "control.sock"), pytest.raises(ControlError, match="no permission"):
        find_socket()
