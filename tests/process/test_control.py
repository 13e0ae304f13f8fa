"""What a running relay answers on its control socket and its metrics address."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from qanat.errors import ConfigError, ControlError, Problem, QanatError
from qanat.observe.control_client import ControlClient
from qanat.observe.http import Request, Response
from qanat.process.control import metrics_routes
from tests.support.controlled import FakeRelay, controlled


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
