"""The relay as a process of its own, and targets for it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from qanat.observe.control_client import ControlClient
from tests.support.wait import wait_until

__all__ = ["Program", "connect", "echo_target", "free_port", "talk"]

_FOREIGN = frozenset(
    {"REALM_CONF", "NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "WATCHDOG_USEC", "QANAT_CONTROL"}
)


class Program:
    """``qanat relay`` with its streams in files. Leaving kills what still runs."""

    def __init__(self, directory: Path, *words: str, **env: str) -> None:
        self.directory = directory
        self.run_directory = directory / "run"
        self._out = (directory / "stdout").open("w+b")
        self._err = (directory / "stderr").open("w+b")
        inherited = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        inherited["RUNTIME_DIRECTORY"] = str(self.run_directory)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qanat", "relay", *words],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env={**inherited, **env},
            cwd=directory,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._out.close()
        self._err.close()

    @property
    def stdout(self) -> str:
        return (self.directory / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.directory / "stderr").read_text()

    @property
    def control(self) -> Path:
        return self.run_directory / "control.sock"

    def ready(self) -> Self:
        """Wait until everything is served."""

        def answers() -> bool:
            assert self.process.poll() is None, f"ended early: {self.stderr}"
            try:
                with ControlClient(self.control) as client:
                    client.get("/version")
            except OSError:
                return False
            except Exception:
                return False
            return True

        wait_until(answers, 30, "the program is ready")
        return self

    def addresses(self) -> list[tuple[str, int]]:
        """Where the endpoints listen, in their order, as printed."""
        found = re.findall(r"^inited: (\S+):(\d+) -> ", self.stdout, re.M)
        return [(host.strip("[]"), int(port)) for host, port in found]

    def ask(self, path: str) -> object:
        with ControlClient(self.control) as client:
            return client.get(path)

    def post(self, path: str, **query: str) -> object:
        with ControlClient(self.control) as client:
            return client.post(path, **query)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 40) -> int:
        return self.process.wait(timeout)


def free_port() -> int:
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=10)


def talk(sock: socket.socket, said: bytes = b"hello") -> None:
    """Say something to an echo and hear it."""
    sock.sendall(said)
    heard = b""
    while len(heard) < len(said):
        piece = sock.recv(65536)
        assert piece, "the connection ended"
        heard += piece
    assert heard == said


@contextmanager
def echo_target(greeting: bytes = b"") -> Iterator[str]:
    """An echo server on a free port: its ``host:port``."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    open_sockets: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            open_sockets.append(accepted)
            threading.Thread(target=echo, args=(accepted,), daemon=True).start()

    def echo(accepted: socket.socket) -> None:
        with accepted:
            try:
                accepted.sendall(greeting)
                while received := accepted.recv(65536):
                    accepted.sendall(received)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # Wakes the thread that accepts, which closing alone would not.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for accepted in open_sockets:
            accepted.close()
        thread.join(5)
