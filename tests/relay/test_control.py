"""The control socket: where it stands, who may use it, what it answers."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from qanat.errors import ConfigError, ControlError, Problem, QanatError
from qanat.observe.control import ControlClient
from qanat.observe.http import Request, Response
from qanat.relay.control import ControlSocket, metrics_routes
from tests.support.controlled import FakeRelay, controlled


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


@pytest.fixture
def relay(tmp_path: Path) -> Any:
    with controlled(tmp_path / "control.sock") as relay:
        yield relay


@pytest.fixture
def client(relay: FakeRelay, tmp_path: Path) -> Any:
    with ControlClient(tmp_path / "control.sock", timeout=5) as client:
        yield client


def test_looking(client: ControlClient) -> None:
    assert [flow["id"] for flow in client.get("/flows")] == [2, 1]
    assert client.get("/endpoints")[0]["endpoint"] == "web"
    assert client.get("/stats") == {"workers": []}
    assert client.get("/version") == {"version": "1.2", "pid": 1}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"endpoint": "web"}, [2]),
        ({"endpoint": "none"}, []),
        ({"client": "192.0.2.7"}, [2]),
        ({"client": "192.0.2.7:40002"}, [2]),
        ({"client": "192.0.2.7:40003"}, []),
        ({"client": "2001:db8::1"}, [1]),
        ({"client": "[2001:db8::1]"}, [1]),
        ({"client": "[2001:db8::1]:53"}, [1]),
        ({"client": "192.0.2.7", "endpoint": "dns"}, []),
    ],
)
def test_choosing(client: ControlClient, query: dict[str, str], found: list[int]) -> None:
    assert [flow["id"] for flow in client.get("/flows", **query)] == found


def test_killing(client: ControlClient, relay: FakeRelay) -> None:
    assert client.post("/flows/2/kill") == {"killed": 2}
    assert relay.killed == [2]
    with pytest.raises(ControlError, match="no flow 99") as raised:
        client.post("/flows/99/kill")
    assert raised.value.code == "flow"
    with pytest.raises(ControlError, match="no flow's number"):
        client.post("/flows/-1/kill")


def test_reloading(client: ControlClient, relay: FakeRelay) -> None:
    report = client.post("/reload")
    assert report["added"] == ["new"]
    assert report["untouched"] == ["a", "b"]
    relay.outcome = ConfigError([Problem("one", file="f", line=3), Problem("two")])
    with pytest.raises(ControlError) as raised:
        client.post("/reload")
    assert (raised.value.code, str(raised.value)) == ("config", "f:3: one\ntwo")
    relay.outcome = QanatError("busy", code="stopping")
    with pytest.raises(ControlError, match="busy"):
        client.post("/reload")


def test_a_look_changes_nothing(client: ControlClient, relay: FakeRelay) -> None:
    for path in ("/stop", "/reload", "/flows/2/kill"):
        with pytest.raises(ControlError, match="does not answer GET"):
            client.get(path)
    with pytest.raises(ControlError, match="no /nowhere"):
        client.get("/nowhere")
    assert (relay.killed, relay.stopped) == ([], [])


@pytest.mark.parametrize(("given", "now"), [(None, False), ("true", True), ("false", False)])
def test_stopping(client: ControlClient, relay: FakeRelay, given: str | None, now: bool) -> None:
    assert client.post("/stop", now=given) == {"flows": 2}
    assert relay.stopped == [now]


def test_the_metrics_address_answers_metrics_and_nothing_else() -> None:
    answer = metrics_routes(FakeRelay())

    def ask(method: str, path: str) -> Response:
        async def main() -> Response:
            return await answer(Request(method, path, {}, {}, b"", None))

        return asyncio.run(main())

    assert ask("GET", "/metrics").body == b"qanat_up 1\n"
    assert ask("GET", "/flows").status == 404
    assert ask("POST", "/reload").status == 404
    assert ask("POST", "/metrics").status == 405


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
