"""Remotes that fail and come back, as a user of the program sees it."""

from __future__ import annotations

import http.client
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.e2e.test_balance import configured, greetings
from tests.support.echo import echo_server
from tests.support.peers import Target, connect, hear, read_to_end, resets, talk
from tests.support.relay_process import RelayProcess
from tests.support.wait import wait_until

QUICK = 'kind = "{kind}", interval = 0.1, timeout = 5.0, rise = 1, fall = 2'


def nobody() -> int:
    """A port where nobody listens."""
    with Target() as gone:
        return gone.port


def health(relay: RelayProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = relay.ask("/endpoints")[0]["health"]
    return found


def states(relay: RelayProcess) -> list[str]:
    return [remote["state"] for remote in health(relay)]


def changes(relay: RelayProcess) -> list[str]:
    codes = [line.get("code") for line in relay.notices()]
    return [code for code in codes if code in ("remote_down", "remote_up")]


def test_a_backup_takes_over_inside_the_same_connection(start: Start, tmp_path: Path) -> None:
    dead = nobody()
    with echo_server(b"1") as backup:
        path = configured(tmp_path, [dead, backup], "failover = true")
        relay = start("-c", str(path))
        assert greetings(relay, 10) == 10 * "1"
        first, second = health(relay)
        assert (first["state"], first["fails"], first["total"]) == ("down", 2, 2)
        assert "refused" in first["reason"]
        assert (second["state"], second["reason"]) == ("up", None)
        # Every flow ended well, and the change was told once.
        relay.wait_ended(10)
        assert {record["reason"] for record in relay.ended()} <= {"client_closed", "client_reset"}
        wait_until(lambda: changes(relay) == ["remote_down"])


def test_it_comes_back_when_its_time_is_over(start: Start, tmp_path: Path) -> None:
    port = nobody()
    with echo_server(b"1") as backup:
        lines = ("failover = true", "network = { max_fails = 1, fail_timeout = 500 }")
        relay = start("-c", str(configured(tmp_path, [port, backup], *lines)))
        assert greetings(relay, 3) == "111"
        assert states(relay)[0] == "down"
        with _greeting_at(port, b"0"):
            wait_until(lambda: greetings(relay, 1) == "0", what="the first serves again")
            wait_until(lambda: states(relay) == ["up", "up"], what="it is wholly back")
            assert greetings(relay, 5) == "00000"
            wait_until(lambda: changes(relay) == ["remote_down", "remote_up"])


@contextmanager
def _greeting_at(port: int, word: bytes) -> Iterator[None]:
    """A target at this port that says a word to whoever comes."""
    with Target(port=port) as target:
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    client = target.accept()
                except OSError:
                    continue
                with client:
                    client.sendall(word)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            connect(("127.0.0.1", port)).close()
            thread.join()


def test_when_all_are_down_all_are_tried(start: Start, tmp_path: Path) -> None:
    ports = [nobody(), nobody()]
    lines = ('balance = "roundrobin"', "failover = true", "network = { max_fails = 1 }")
    relay = start("-c", str(configured(tmp_path, ports, *lines)))
    for _ in range(3):
        assert resets(relay.address)
    assert states(relay) == ["down", "down"]
    with _greeting_at(ports[1], b"1"):
        # No pause has to be over for that.
        assert greetings(relay, 2) == "11"


def test_clients_of_other_remotes_notice_nothing(start: Start, tmp_path: Path) -> None:
    """One of two targets, a process, is killed under 200 flows."""
    script = (
        "import sys; from tests.support.echo import echo_server\n"
        "with echo_server(sys.argv[1].encode()) as port:\n"
        "    print(port, flush=True); sys.stdin.read()"
    )
    with ExitStack() as stack:
        targets = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", script, str(number)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=Path(__file__).parents[2],
                    env={**os.environ, "PYTHONPATH": "src:."},
                )
            )
            for number in range(2)
        ]
        for target in targets:
            stack.callback(target.kill)
        ports = [int(target.stdout.readline()) for target in targets if target.stdout]
        lines = ('balance = "roundrobin"', "failover = true")
        relay = start("-c", str(configured(tmp_path, ports, *lines)))
        clients = [stack.enter_context(connect(relay.address)) for _ in range(200)]
        homes = [hear(client, 1) for client in clients]
        assert homes.count(b"0") == homes.count(b"1") == 100
        targets[0].kill()
        living = [client for client, home in zip(clients, homes, strict=True) if home == b"1"]
        for client in living:
            client.sendall(b"hello")
            assert hear(client, 5) == b"hello"
        assert greetings(relay, 20) == 20 * "1"
        for client, home in zip(clients, homes, strict=True):
            if home == b"0":
                assert read_to_end(client) == b""
        for client in living:
            client.sendall(b"again")
            assert hear(client, 5) == b"again"
        assert states(relay) == ["down", "up"]


@contextmanager
def web_server(answer: dict[str, int]) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer[self.path])
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def scrape(port: int) -> str:
    """The lines of one metric."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    return "\n".join(line for line in text.splitlines() if line.startswith("qanat_remote_up{"))


def test_http_checks_take_out_what_is_not_well(start: Start, tmp_path: Path) -> None:
    answer = {"/health": 200}
    with web_server(answer) as port, web_server({"/health": 204}) as other:
        check = QUICK.format(kind="http") + ', path = "/health"'
        path = configured(
            tmp_path,
            [port, other],
            'balance = "roundrobin"',
            f"network = {{ check = {{ {check} }} }}",
        )
        metrics_port = nobody()
        relay = start("-c", str(path), "--metrics", f"127.0.0.1:{metrics_port}")
        wait_until(lambda: states(relay) == ["up", "up"], what="both are well")
        answer["/health"] = 500
        wait_until(lambda: states(relay) == ["down", "up"], what="one is taken out")
        assert health(relay)[0]["reason"] == "status 500"
        metrics = scrape(metrics_port)
        assert f'target="127.0.0.1:{port}"}} 0.0' in metrics
        assert f'target="127.0.0.1:{other}"}} 1.0' in metrics
        answer["/health"] = 200
        wait_until(lambda: states(relay) == ["up", "up"], what="it is back")
        wait_until(lambda: changes(relay) == ["remote_down", "remote_up"])


def test_the_command_shows_how_remotes_stand(start: Start, tmp_path: Path) -> None:
    port = nobody()
    with Target() as alive:
        path = configured(tmp_path, [port, alive.port], "failover = true")
        relay = start("-c", str(path))
        for _ in range(2):
            with connect(relay.address) as client, alive.accept() as server:
                talk(client, server)
        control = relay.directory / "run" / "control.sock"
        command = [
            sys.executable,
            "-m",
            "qanat",
            "endpoints",
            "--health",
            "--control",
            str(control),
        ]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        rows = [line.split("\t") for line in ran.stdout.splitlines()]
        assert [row[2] for row in rows] == ["STATE", "down", "up"]
        assert rows[1][1] == f"127.0.0.1:{port}"
        assert "refused" in rows[1][7]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("network = { check = { interval = 0.0 } }", "interval"),
        ('network = { check = { kind = "udp" } }', "send"),
        ("network = { fail_timeout = -1 }", "fail_timeout"),
    ],
)
def test_what_can_not_be_is_refused_at_start(tmp_path: Path, line: str, word: str) -> None:
    path = configured(tmp_path, [1, 2], "failover = true", line)
    command = [sys.executable, "-m", "qanat", "relay", "-c", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 1
    assert word in ran.stderr
