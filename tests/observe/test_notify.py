"""Notices to a service manager, and sockets from one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qanat.observe.notify import Notifier, inherited_sockets


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def told(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_each_notice_in_the_words_of_the_protocol(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    assert notifier.wanted
    notifier.ready("serving\n2", main_pid=17)
    assert told(manager) == ["READY=1", "MAINPID=17", "STATUS=serving 2"]
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    word, stamp = told(manager)
    assert word == "RELOADING=1"
    key, _, value = stamp.partition("=")
    assert key == "MONOTONIC_USEC"
    assert before <= int(value) <= before + 10_000_000
    notifier.stopping("draining")
    assert told(manager) == ["STOPPING=1", "STATUS=draining"]
    notifier.status("fine")
    assert told(manager) == ["STATUS=fine"]
    notifier.alive()
    assert told(manager) == ["WATCHDOG=1"]
    notifier.extend(1.5)
    assert told(manager) == ["EXTEND_TIMEOUT_USEC=1500000"]


def test_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = f"qanat-test-{os.getpid()}"
        sock.bind("\0" + name)
        sock.settimeout(5)
        Notifier({"NOTIFY_SOCKET": "@" + name}).alive()
        assert told(sock) == ["WATCHDOG=1"]


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}])
def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    assert not notifier.wanted
    notifier.ready()


def test_a_manager_that_went_away_is_no_error(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "5"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "6"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
        ({}, None),
    ],
)
def test_the_watchdogs_interval(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/x", **environ}, pid=5).watchdog == seconds
    assert Notifier(environ, pid=5).watchdog is None


def test_sockets_meant_for_another_process_are_left_alone() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "OTHER": "kept"}
    assert inherited_sockets(environ, pid=2) == []
    assert environ == {"OTHER": "kept"}


def test_sockets_are_described_and_what_is_none_is_closed() -> None:
    # In a process of its own, where numbers 3 and up are free to be given.
    code = textwrap.dedent("""
        import os, socket
        from qanat.observe.notify import inherited_sockets

        kept = [socket.create_server(("127.0.0.1", 0)), socket.socket(type=socket.SOCK_DGRAM),
                socket.socket(socket.AF_UNIX), socket.create_server(("::1", 0), family=10)]
        kept[1].bind(("127.0.0.1", 0))
        spare = [os.dup2(sock.fileno(), 50 + i) for i, sock in enumerate(kept)]
        for i, number in enumerate(spare):
            kept[i].detach()
        for i, number in enumerate(spare):
            os.dup2(number, 3 + i)
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "5",
                   "LISTEN_FDNAMES": "web:dns:other"}
        found = inherited_sockets(environ)
        assert environ == {}
        assert [(f.descriptor, f.name, f.protocol) for f in found] == [
            (3, "web", "tcp"), (4, "dns", "udp"), (6, "unknown", "tcp")], found
        assert found[0].address.startswith("127.0.0.1:")
        assert found[2].address.startswith("[::1]:")
        assert not os.get_inheritable(3)
        try:
            os.fstat(5)
        except OSError:
            print("closed")
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr
