"""Several processes for one server: signals, deaths, and whom nobody must outlive."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qanat.stack.errors import LocalProtocolError
from qanat.stack.workers import run_workers
from tests.support.wait import wait_until

__all__: list[str] = []

_PROGRAM = """
import asyncio, logging, os, signal, sys
from qanat.stack import Stream, open_server
from qanat.stack.workers import run_workers

logging.basicConfig(level="INFO", format="%(message)s")

def say(*words: object) -> None:
    # One write, since others write to the same file.
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
PORT, COUNT, HOW = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

async def tell(stream: Stream, /) -> None:
    await stream.write(b"%d\\n" % os.getpid())
    await stream.read()

async def serve(number: int) -> None:
    async with open_server(drain=5) as server:
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGHUP, lambda: say("hup", number)
        )
        server.tcp(f"127.0.0.1:{PORT}", tell, reuse_port=HOW != "alone")
        say("up", number, os.getpid())
        await server.run()
    say("ended", number)

def main(number: int) -> int | None:
    if HOW == "once" and number == 0:
        return 0
    if HOW == "restless":
        say("up", number, os.getpid())
        return 3
    asyncio.run(serve(number))
    return None

print("before")
sys.exit(run_workers(main, COUNT))
"""


class Program:
    def __init__(self, folder: Path, count: int, how: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.out = folder / "out"
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(self.port), str(count), how],
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def lines(self, word: str) -> list[list[str]]:
        found = [line.split() for line in self.out.read_text().splitlines()]
        return [line for line in found if line[:1] == [word]]

    def pids(self) -> list[int]:
        return [int(line[-1]) for line in self.lines("up")]

    def up(self, count: int) -> None:
        wait_until(lambda: len(self.pids()) >= count, what=f"{count} workers are up")

    def ask(self) -> int:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
            return int(client.makefile().readline())


@contextmanager
def program(folder: Path, count: int, how: str = "") -> Iterator[Program]:
    made = Program(folder, count, how)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_all_of_them_serve_the_port_and_end_in_order(tmp_path: Path) -> None:
    with program(tmp_path, 3) as running:
        running.up(3)
        pids = set(running.pids())
        assert len(pids) == 3
        # The kernel spreads connections by their ports.
        answered = {running.ask() for _ in range(60)}
        assert answered <= pids
        assert len(answered) > 1
        running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(running.lines("hup")) == 3, what="all heard of it")
        running.process.terminate()
        assert running.process.wait(10) == 0
        assert len(running.lines("ended")) == 3
        assert running.out.read_text().count("before") == 1


def test_a_connection_is_drained(tmp_path: Path) -> None:
    with program(tmp_path, 2) as running:
        running.up(2)
        client = socket.create_connection(("127.0.0.1", running.port), timeout=10)
        assert client.makefile().readline()
        running.process.send_signal(signal.SIGINT)
        wait_until(lambda: len(running.lines("ended")) == 1, what="the idle one has ended")
        assert running.process.poll() is None
        client.close()
        assert running.process.wait(10) == 0


def test_one_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with program(tmp_path, 2) as running:
        running.up(2)
        # Old enough to have come up.
        until = time.monotonic() + 1.2
        wait_until(lambda: time.monotonic() > until)
        victim = running.pids()[0]
        os.kill(victim, signal.SIGKILL)
        running.up(3)
        assert "has died (SIGKILL); another one in 0.1 s" in running.out.read_text()
        assert running.ask() != victim
        running.process.terminate()
        assert running.process.wait(10) == 0


def test_one_that_never_comes_up_ends_the_program(tmp_path: Path) -> None:
    with program(tmp_path, 2, "alone") as running:
        assert running.process.wait(10) == 1
        text = running.out.read_text()
        assert "Address already in use" in text
        assert "did not come up (exit code 1)" in text
        assert not any(map(is_alive, running.pids()))
    with program(tmp_path, 1, "restless") as running:
        assert running.process.wait(10) == 3


def test_one_that_is_done_is_not_started_again(tmp_path: Path) -> None:
    with program(tmp_path, 2, "once") as running:
        running.up(1)
        assert running.process.poll() is None
        running.process.terminate()
        assert running.process.wait(10) == 0
        assert len(running.pids()) == 1


def test_nobody_outlives_the_foreman(tmp_path: Path) -> None:
    with program(tmp_path, 2) as running:
        running.up(2)
        running.process.kill()
        running.process.wait(10)
        wait_until(lambda: not any(map(is_alive, running.pids())), what="they have ended, too")


@pytest.mark.parametrize("count", [0, -1, 1025])
def test_how_many_there_may_be(count: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"{count} workers"):
        run_workers(lambda _: None, count)


def test_threads_do_not_come_along() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(LocalProtocolError, match="before any thread"):
            run_workers(lambda _: None, 1)
    finally:
        stop.set()
        thread.join()
