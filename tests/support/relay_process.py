"""The relay as a process of its own, and what can be seen of it from outside.

Knows the command line, the control socket, the log and /proc; nothing of what is inside.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.wait import wait_until

__all__ = ["RelayProcess", "endpoints_toml"]

_FOREIGN = frozenset(
    {"REALM_CONF", "NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "WATCHDOG_USEC", "QANAT_CONTROL"}
)
_TICKS = os.sysconf("SC_CLK_TCK")

Address = tuple[str, int]


class RelayProcess:
    """``qanat relay``, or another ``command`` that serves, with its streams and its log in files.
    Leaving kills what still runs.

    ``before`` are words in front of the command, as of ``ip netns exec`` or ``unshare``.
    """

    def __init__(
        self,
        directory: Path,
        *words: str,
        before: Sequence[str] = (),
        level: str = "info",
        command: str = "relay",
        **env: str,
    ) -> None:
        self.directory = directory
        self.log = directory / "log"
        self._read = 0
        self._records: list[dict[str, Any]] = []
        inherited = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        inherited["RUNTIME_DIRECTORY"] = str(directory / "run")
        logged = ["--log-level", level, "--log-format", "json", "--log-output", str(self.log)]
        self._out = (directory / "stdout").open("wb")
        self._err = (directory / "stderr").open("wb")
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "qanat", command, *words, *logged],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env={**inherited, **env},
        )
        self.pid = self.process.pid

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

    def ready(self) -> Self:
        """Wait until everything is served."""

        def answers() -> bool:
            assert self.process.poll() is None, f"ended early: {self.stderr}"
            try:
                self.pid = self.ask("/version")["pid"]
            except OSError:
                return False
            return True

        wait_until(answers, 30, "the relay is ready")
        return self

    # What it says

    @property
    def stdout(self) -> str:
        return (self.directory / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.directory / "stderr").read_text()

    def addresses(self) -> list[Address]:
        """Where the endpoints listen, in their order."""
        found = re.findall(r"^inited: (\S+):(\d+) -> ", self.stdout, re.M)
        return [(host.strip("[]"), int(port)) for host, port in found]

    @property
    def address(self) -> Address:
        """Where the first endpoint listens."""
        return self.addresses()[0]

    def logged(self) -> list[dict[str, Any]]:
        """All that is in the log, one dict a line."""
        with self.log.open("rb") as file:
            file.seek(self._read)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        self._records += map(json.loads, whole.splitlines())
        return self._records

    def notices(self) -> list[dict[str, Any]]:
        """Lines that are not about the end of a flow."""
        return [line for line in self.logged() if line["logger"] != "qanat.access"]

    def ended(self, **wanted: object) -> list[dict[str, Any]]:
        """The records of flows that ended, those of them that have the wanted values."""
        return [
            line
            for line in self.logged()
            if line["logger"] == "qanat.access"
            and all(line.get(name) == value for name, value in wanted.items())
        ]

    def wait_ended(self, count: int = 1, timeout: float = 15) -> list[dict[str, Any]]:
        """Wait until so many flows have ended in all; their records."""
        wait_until(lambda: len(self.ended()) >= count, timeout, f"{count} flows ended")
        return self.ended()

    def end_of_flow(self, timeout: float = 15) -> dict[str, Any]:
        """The record of the only flow there was, once it has ended."""
        (record,) = self.wait_ended(1, timeout)
        return record

    # What it answers

    def ask(self, path: str, method: str = "GET") -> Any:
        """What the control socket answers. :raises OSError: nothing."""
        connection = _UnixConnection(self.directory / "run" / "control.sock")
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, f"{method} {path}: {answer.status} {body!r}"
        return json.loads(body)

    def reload(self) -> Any:
        """Read the configuration again; what changed."""
        return self.ask("/reload", "POST")

    def flows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("/flows")
        return found

    def wait_state(self, *states: str) -> None:
        """Wait until the flows have these states, in any order."""
        wanted = sorted(states)
        wait_until(
            lambda: sorted(flow["state"] for flow in self.flows()) == wanted,
            what=f"flows are {wanted}",
        )

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("/stats")
        return found

    def counted(self, protocol: str = "tcp", endpoint: int = 0) -> dict[str, Any]:
        """The counters of an endpoint, by its place in the configuration."""
        found: dict[str, Any] = self.ask("/endpoints")[endpoint][protocol]
        return found

    def pipes_lent(self) -> int:
        return sum(worker["pipes_lent"] for worker in self.stats()["workers"])

    # What the system says of it

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    @property
    def memory(self) -> int:
        """Proportional set size in bytes."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss:\s+(\d+) kB$", rollup, re.M)
        assert found, rollup
        return int(found[1]) * 1024

    @property
    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def stop(self, timeout: float = 20) -> int:
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(timeout)


def endpoints_toml(endpoints: Iterable[tuple[str, str]], more: str = "") -> str:
    """A configuration with these listen and remote addresses; ``more`` stands in front."""
    tables = [f'[[endpoints]]\nlisten = "{a}"\nremote = "{b}"\n' for a, b in endpoints]
    return "".join([more, "\n", *tables])


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(self.timeout)
            sock.connect(str(self._path))
        except BaseException:
            sock.close()
            raise
        self.sock = sock
