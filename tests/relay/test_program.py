"""The relay as a program: starting, changing, stopping, seen from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qanat.errors import ControlError
from tests.relay.running import Program, connect, echo_target, free_port, talk
from tests.support.wait import wait_until

pytestmark = pytest.mark.timeout(180)  # each starts interpreters, on machines that are shared


@pytest.fixture
def target() -> Iterator[str]:
    with echo_target() as address:
        yield address


def configured(path: Path, target: str, *listen: str, more: str = "") -> Path:
    endpoints = "".join(f'[[endpoints]]\nlisten = "{one}"\nremote = "{target}"\n' for one in listen)
    fresh = path.with_suffix(".new")
    fresh.write_text(f"{more}\n{endpoints}")
    fresh.replace(path)
    return path


# Starting


def test_it_relays_and_says_where(tmp_path: Path, target: str) -> None:
    with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target) as program:
        program.ready()
        lines = program.stdout.splitlines()
        assert re.fullmatch(r"fd: soft=\d+, hard=\d+", lines[0])
        assert lines[1] == "log: level=warn, output=stderr"
        assert lines[2].startswith("dns: mode=ipv4_and_ipv6, ")
        assert lines[3].startswith("inited: 127.0.0.1:")
        with connect(program.addresses()[0]) as sock:
            talk(sock)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert program.stderr == ""
        assert not program.control.exists()


def test_starting_is_cheap(tmp_path: Path, target: str) -> None:
    """In processor time, which does not depend on what else the machine does; wall time is for the
    benchmarks."""
    with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target) as program:
        wait_until(program.addresses, 30)
        used = Path(f"/proc/{program.process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(used[11]) + int(used[12])
    assert ticks / os.sysconf("SC_CLK_TCK") < 0.4


def test_what_is_not_needed_for_listening_is_imported_later() -> None:
    code = """if True:
        import sys
        import qanat.relay.program
        late = {"h11", "http.client", "prometheus_client", "rich", "ssl", "qanat.relay.serving"}
        print(*sorted(late & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    # asyncio brings ssl along; it is imported by the relay.
    assert set(done.stdout.split()) <= {"ssl"}


def test_one_busy_address_stops_everything(tmp_path: Path, target: str) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        words = ["-l", f"127.0.0.1:{port}", "-r", target, "-l", busy, "-r", target]
        with Program(tmp_path, *words) as program:
            assert program.wait() == 1
            assert busy in program.stderr
            assert "in use" in program.stderr
            assert "Traceback" not in program.stderr
            assert list(program.run_directory.glob("*")) == []
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_nothing_to_relay_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text('[log]\nlevel = "info"\n')
    with Program(tmp_path, "-c", str(path)) as program:
        assert program.wait() == 1
        assert "nothing to relay" in program.stderr
        assert str(path) in program.stderr


def test_warnings_of_the_configuration_are_told(tmp_path: Path, target: str) -> None:
    path = configured(tmp_path / "relay.toml", target, "127.0.0.1:0", more="drian = 3")
    for name, words in (("seen", ()), ("off", ("--log-level", "off"))):
        directory = tmp_path / name
        directory.mkdir()
        with Program(directory, "-c", str(path), *words) as program:
            program.ready()
            assert "drian" in program.stderr


@pytest.mark.parametrize("words", [("--metrics", "127.0.0.1:{busy}"), ("--control", "/nowhere/x")])
def test_what_was_asked_for_and_can_not_be_is_an_error(
    tmp_path: Path, target: str, words: tuple[str, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [word.format(busy=taken.getsockname()[1]) for word in words]
        with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target, *given) as program:
            assert program.wait() == 1
            assert words[0].strip("-") in program.stderr
            assert "Traceback" not in program.stderr


def test_the_limit_of_descriptors_is_raised_or_set(tmp_path: Path, target: str) -> None:
    with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target, "-n", "512") as program:
        program.ready()
        assert program.stdout.startswith("fd: soft=512, hard=512\n")
        limits = Path(f"/proc/{program.process.pid}/limits").read_text()
        assert re.search(r"Max open files\s+512\s+512", limits)


def test_two_relays_live_beside_each_other(tmp_path: Path, target: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target) as first:
        first.ready()
        where = {"RUNTIME_DIRECTORY": str(first.run_directory)}
        with Program(other, "-l", "127.0.0.1:0", "-r", target, **where) as second:
            name = first.run_directory / f"control-{second.process.pid}.sock"
            wait_until(name.exists, 20)
            assert first.ask("/version") != second.process.pid
            second.signal(signal.SIGTERM)
            assert second.wait() == 0
            assert not name.exists()
        assert first.control.exists()


def test_it_runs_with_its_streams_closed(tmp_path: Path, target: str) -> None:
    port = free_port()
    command = [sys.executable, "-m", "qanat", "relay", "-l", f"127.0.0.1:{port}", "-r", target]
    closing = ["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", *command, "--log-level", "info"]
    with subprocess.Popen(
        closing, env={**os.environ, "RUNTIME_DIRECTORY": str(tmp_path / "run")}
    ) as process:
        try:
            wait_until(lambda: not refused(("127.0.0.1", port)), 30)
            with connect(("127.0.0.1", port)) as sock:
                talk(sock)
        finally:
            process.terminate()
        assert process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_many_signals_at_any_moment_leave_nothing_behind(
    tmp_path: Path, target: str, number: signal.Signals
) -> None:
    for moment in (0, 0.02, 0.05, 0.1, 0.3):
        directory = tmp_path / str(moment)
        directory.mkdir()
        with Program(directory, "-l", "127.0.0.1:0", "-r", target) as program:
            # Before this, signals are the interpreter's affair.
            wait_until(program.run_directory.exists, 30)
            time.sleep(moment)  # any moment will do: this looks for those that do not
            program.signal(number)
            program.signal(number)
            assert program.wait() in (0, 130), program.stderr
            assert "Traceback" not in program.stderr
            assert list(program.run_directory.glob("*.sock")) == []


# Control


def test_the_control_socket_is_private_and_answers(tmp_path: Path, target: str) -> None:
    with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target) as program:
        program.ready()
        assert stat.S_IMODE(program.control.stat().st_mode) == 0o600
        assert stat.S_IMODE(program.run_directory.stat().st_mode) == 0o700
        with connect(program.addresses()[0]) as sock:
            talk(sock)
            (flow,) = flows(program)
            assert flow["client"] == "{}:{}".format(*sock.getsockname())
            assert (flow["target"], flow["bytes_up"], flow["state"]) == (target, 5, "open")
            (endpoint,) = cast_list(program.ask("/endpoints"))
            assert (endpoint["open"], endpoint["total"], endpoint["bytes_down"]) == (1, 1, 5)
            program.post(f"/flows/{flow['id']}/kill")
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        wait_until(lambda: flows(program) == [])


def flows(program: Program) -> list[dict[str, Any]]:
    return cast_list(program.ask("/flows"))


def cast_list(answer: object) -> list[dict[str, Any]]:
    assert isinstance(answer, list)
    return answer


def test_control_can_be_left_out(tmp_path: Path, target: str) -> None:
    with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target, "--control", "off") as program:
        wait_until(program.addresses)
        assert not program.run_directory.exists()
        program.signal(signal.SIGTERM)
        assert program.wait() == 0


def test_metrics_are_served(tmp_path: Path, target: str) -> None:
    from urllib.request import urlopen

    address = f"127.0.0.1:{free_port()}"
    with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target, "--metrics", address) as program:
        program.ready()
        with connect(program.addresses()[0]) as sock:
            talk(sock)
            with urlopen(f"http://{address}/metrics", timeout=5) as answer:
                text = answer.read().decode()
            assert answer.headers["Content-Type"].startswith("text/plain")
    assert 'qanat_flows_open{endpoint="127.0.0.1:0",protocol="tcp"} 1.0' in text
    assert 'qanat_bytes_total{direction="up",endpoint="127.0.0.1:0",protocol="tcp"} 5.0' in text
    assert re.search(r'qanat_build_info\{version="\d', text)


# Logs


def test_each_ended_flow_has_its_line(tmp_path: Path, target: str) -> None:
    log = tmp_path / "log"
    words = ["--log-level", "info", "--log-output", str(log), "--log-format", "json"]
    with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target, *words) as program:
        program.ready()
        with connect(program.addresses()[0]) as sock:
            talk(sock)
        wait_until(lambda: "flow ended" in log.read_text())
        line = next(
            told for told in map(json.loads, log.read_text().splitlines()) if "reason" in told
        )
        assert line["logger"] == "qanat.access"
        assert (line["target"], line["bytes_up"], line["bytes_down"]) == (target, 5, 5)
        assert line["reason"] == "client_closed"
        assert line["connect"] >= 0
        assert program.stdout.splitlines()[1] == f"log: level=info, output={log}"


def test_the_log_is_opened_anew(tmp_path: Path, target: str) -> None:
    log = tmp_path / "log"
    words = ["--log-level", "info", "--log-output", str(log)]
    with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target, *words) as program:
        program.ready()
        for number in (signal.SIGUSR1, signal.SIGHUP):
            moved = log.rename(tmp_path / f"log.{number.name}")
            program.signal(number)
            wait_until(log.exists)
            assert moved.exists()


# Reload


def test_a_reload_touches_what_differs_and_nothing_else(tmp_path: Path, target: str) -> None:
    ports = [free_port() for _ in range(4)]
    listen = [f"127.0.0.1:{port}" for port in ports]
    path = configured(tmp_path / "relay.toml", target, *listen[:3])
    with Program(tmp_path, "-c", str(path)) as program, echo_target(b"new") as other:
        program.ready()
        kept = [connect(("127.0.0.1", port)) for port in ports[:3]]
        for sock in kept:
            talk(sock)
        endpoints = [(listen[0], target), (listen[1], other), (listen[3], target)]
        path.write_text(
            "".join(f'[[endpoints]]\nlisten = "{a}"\nremote = "{b}"\n' for a, b in endpoints)
        )
        report = program.post("/reload")
        assert report == {
            "added": [listen[3]],
            "removed": [listen[2]],
            "changed": [listen[1]],
            "rebound": [],
            "untouched": [listen[0]],
            "warnings": [],
        }
        for sock in kept:
            talk(sock, b"still here")
            sock.close()
        with connect(("127.0.0.1", ports[1])) as sock:
            assert sock.recv(3) == b"new"
        with connect(("127.0.0.1", ports[3])) as sock:
            talk(sock)
        with pytest.raises(ConnectionRefusedError):
            connect(("127.0.0.1", ports[2]))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[endpoints]]\nlisten = 5\nremote = 'a'", "relay.toml:2"),
        ("= nonsense", "relay.toml:1"),
        ("", "nothing to relay"),
        ("[log]\noutput = '/nowhere/log'\n{good}", "log.output"),
        ("{good}[[endpoints]]\nlisten = '192.0.2.1:5'\nremote = 'a:5'", "192.0.2.1:5"),
    ],
    ids=["wrong", "no toml", "empty", "no log", "no such address"],
)
def test_a_bad_file_changes_nothing_and_says_why(
    tmp_path: Path, target: str, text: str, why: str
) -> None:
    path = tmp_path / "relay.toml"
    good = configured(path, target, "127.0.0.1:0").read_text()
    with Program(tmp_path, "-c", str(path)) as program:
        program.ready()
        with connect(program.addresses()[0]) as sock:
            talk(sock)
            path.write_text(text.replace("{good}", good.replace(target, "127.0.0.1:1")))
            with pytest.raises(ControlError, match=re.escape(why)):
                program.post("/reload")
            assert why in program.stderr
            assert "Traceback" not in program.stderr
            program.signal(signal.SIGHUP)
            wait_until(lambda: program.stderr.count(why) > 1)
            talk(sock)
        with connect(program.addresses()[0]) as sock:
            talk(sock)
        path.write_text(good)
        assert cast_dict(program.post("/reload"))["untouched"] == ["127.0.0.1:0"]


def cast_dict(answer: object) -> dict[str, Any]:
    assert isinstance(answer, dict)
    return answer


def test_a_changed_file_is_noticed(tmp_path: Path, target: str) -> None:
    ports = [free_port(), free_port()]
    folder = tmp_path / "parts"
    folder.mkdir()
    configured(folder / "a.toml", target, f"127.0.0.1:{ports[0]}")
    with Program(tmp_path, "-c", str(folder), "--watch") as program:
        program.ready()
        configured(folder / "b.toml", target, f"127.0.0.1:{ports[1]}")
        wait_until(lambda: len(cast_list(program.ask("/endpoints"))) == 2, 10)
        with connect(("127.0.0.1", ports[1])) as sock:
            talk(sock)


def test_reloads_under_load_lose_nothing(tmp_path: Path, target: str) -> None:
    port = free_port()
    path = configured(tmp_path / "relay.toml", target, f"127.0.0.1:{port}")
    with Program(tmp_path, "-c", str(path)) as program, echo_target() as other:
        program.ready()
        kept = connect(("127.0.0.1", port))
        for number in range(20):
            configured(path, (target, other)[number % 2], f"127.0.0.1:{port}")
            program.signal(signal.SIGHUP)
            for _ in range(5):
                with connect(("127.0.0.1", port)) as sock:
                    talk(sock, os.urandom(1000))
            talk(kept)
        kept.close()
        assert program.stderr == ""


def test_log_settings_and_drain_follow_a_reload(tmp_path: Path, target: str) -> None:
    log = tmp_path / "log"
    path = configured(tmp_path / "relay.toml", target, "127.0.0.1:0")
    with Program(tmp_path, "-c", str(path)) as program:
        program.ready()
        more = f'drain = 0.1\nworkers = 7\n[log]\nlevel = "info"\noutput = "{log}"'
        configured(path, target, "127.0.0.1:0", more=more)
        (warning,) = cast_dict(program.post("/reload"))["warnings"]
        assert warning == "workers has changed; that takes effect at the next start"
        with connect(program.addresses()[0]) as sock:
            talk(sock)
        wait_until(lambda: "client_closed" in log.read_text())
        assert warning in log.read_text()
        with connect(program.addresses()[0]) as sock:
            talk(sock)
            began = time.monotonic()
            program.signal(signal.SIGTERM)
            assert program.wait() == 0
            assert time.monotonic() - began < 5


# Stopping


def test_flows_may_end_in_peace(tmp_path: Path, target: str) -> None:
    with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target) as program:
        program.ready()
        address = program.addresses()[0]
        with connect(address) as sock:
            talk(sock)
            program.signal(signal.SIGTERM)
            wait_until(lambda: refused(address))
            talk(sock, b"still served")
            assert program.process.poll() is None
        assert program.wait() == 0
        assert program.stderr == ""


def refused(address: tuple[str, int]) -> bool:
    try:
        connect(address).close()
    except ConnectionRefusedError:
        return True
    return False


def test_what_does_not_end_in_time_is_cut_and_told(tmp_path: Path, target: str) -> None:
    with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target, "--drain", "0.3") as program:
        program.ready()
        with connect(program.addresses()[0]) as sock:
            talk(sock)
            program.signal(signal.SIGINT)
            assert program.wait() == 0
            assert program.stderr.splitlines()[-1] == "stopped; cut 1 flow that had not ended"
            with pytest.raises(ConnectionResetError):
                sock.recv(1)


def test_a_second_signal_ends_it_now(tmp_path: Path, target: str) -> None:
    with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target, "--drain", "60") as program:
        program.ready()
        address = program.addresses()[0]
        with connect(address) as sock:
            talk(sock)
            program.signal(signal.SIGTERM)
            wait_until(lambda: refused(address))
            program.signal(signal.SIGTERM)
            assert program.wait() == 0
            assert "cut 1 flow" in program.stderr


def test_stop_now_cuts_a_drain_short(tmp_path: Path, target: str) -> None:
    with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target, "--drain", "60") as program:
        program.ready()
        with connect(program.addresses()[0]) as sock:
            talk(sock)
            assert program.post("/stop") == {"flows": 1}
            assert len(flows(program)) == 1
            with pytest.raises(ControlError, match="stopping"):
                program.post("/reload")
            program.post("/stop", now="true")
            assert program.wait() == 0


# Service manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(10)
        yield sock


def test_the_service_manager_is_told(tmp_path: Path, target: str, manager: socket.socket) -> None:
    def told() -> list[str]:
        return manager.recv(4096).decode().splitlines()

    env = {"NOTIFY_SOCKET": manager.getsockname()}
    with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target, **env) as program:
        assert told() == ["READY=1", "STATUS=1 endpoint, 0 flows"]
        with connect(program.addresses()[0]) as sock:
            talk(sock)
        program.signal(signal.SIGHUP)
        reloading = told()
        assert reloading[0] == "RELOADING=1"
        assert reloading[1].startswith("MONOTONIC_USEC=")
        assert told()[0] == "READY=1"
        program.signal(signal.SIGTERM)
        assert told()[0] == "STOPPING=1"
        assert program.wait() == 0


def test_signs_of_life_while_the_engine_lives(
    tmp_path: Path, target: str, manager: socket.socket
) -> None:
    env = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "300000"}
    with Program(tmp_path, "-l", "127.0.0.1:0", "-r", target, **env):
        seen = [manager.recv(4096) for _ in range(4)]
        assert seen.count(b"WATCHDOG=1") >= 3


ACTIVATION = """
import os, socket, sys
tcp = socket.create_server(("127.0.0.1", 0))
udp = socket.socket(type=socket.SOCK_DGRAM)
udp.bind(tcp.getsockname())
spare = [os.dup2(sock.fileno(), 20 + place) for place, sock in enumerate((tcp, udp))]
for place, number in enumerate(spare):
    os.dup2(number, 3 + place)
    os.set_inheritable(number, False)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="web:other")
address = "%s:%s" % tcp.getsockname()
print(address, flush=True)
words = [word.replace("ADDRESS", address) for word in sys.argv[1:]]
os.execv(sys.executable, [sys.executable, "-m", "qanat", "relay", *words])
"""


@pytest.mark.parametrize("by", ["address", "name"])
def test_sockets_of_a_service_manager_are_used(tmp_path: Path, target: str, by: str) -> None:
    path = tmp_path / "relay.toml"
    path.write_text(f'[[endpoints]]\nname = "web"\nlisten = "127.0.0.1:1"\nremote = "{target}"\n')
    words = ["-u", "-l", "ADDRESS", "-r", target] if by == "address" else ["-c", str(path)]
    errors = tmp_path / "stderr"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", ACTIVATION, *words],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "RUNTIME_DIRECTORY": str(tmp_path / "run")},
        ) as process,
    ):
        assert process.stdout is not None
        try:
            host, _, port = process.stdout.readline().strip().partition(":")
            # It listens already: what connects before the relay runs is served when it does.
            with connect((host, int(port))) as sock:
                talk(sock)
            if by == "name":
                # There is no endpoint for the UDP socket then.
                wait_until(lambda: "no endpoint uses" in errors.read_text())
        finally:
            process.terminate()
            process.wait()
    if by == "address":
        assert errors.read_text() == ""


# Daemon


def test_a_daemon_detaches_once_it_serves(tmp_path: Path, target: str) -> None:
    pid_file = tmp_path / "pid"
    words = ["-d", "-l", "127.0.0.1:0", "-r", target, "--pid-file", str(pid_file)]
    with Program(tmp_path, *words) as program:
        assert program.wait() == 0
        assert "nobody will see its log without --log-output" in program.stderr
        number = int(pid_file.read_text())
        try:
            with connect(program.addresses()[0]) as sock:
                talk(sock)
            assert number != program.process.pid
            assert os.getsid(number) != os.getsid(0)
            assert os.readlink(f"/proc/{number}/fd/1") == "/dev/null"
        finally:
            os.kill(number, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{number}").exists())
        assert not pid_file.exists()


def test_a_daemon_that_can_not_start_says_so(tmp_path: Path, target: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        with Program(tmp_path, "-d", "-l", busy, "-r", target) as program:
            assert program.wait() == 1
            assert busy in program.stderr


# Quick start


def test_the_quick_start_shows_the_flow(tmp_path: Path) -> None:
    from urllib.request import urlopen

    with Program(tmp_path, "--quick-start") as program:
        program.ready()
        assert "curl 127.0.0.1:8000" in program.stdout
        with urlopen("http://127.0.0.1:8000/", timeout=5) as answer:
            text = answer.read().decode()
        assert "came through the relay" in text
        assert re.search(r"flow +\d+", text)
        assert re.search(r"client +127\.0\.0\.1:\d+ \(you\)", text)
        other = tmp_path / "other"
        other.mkdir()
        with Program(other, "--quick-start") as second:
            assert second.wait() == 1
            assert "another program listens there" in second.stderr
            assert "ss -ltnp" in second.stderr
        program.post("/reload")
        with urlopen("http://127.0.0.1:8000/", timeout=5) as answer:
            assert b"came through" in answer.read()
