"""Proxies that are compared, each set up as its own users would, for questions that only proxies
can be asked."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks import generator, measure
from benchmarks.failure import BenchmarkError
from benchmarks.peers import Direct, Peer, Qanat, Relaying, free_port
from benchmarks.question import Sample, Setting

__all__ = ["PROXIES", "Client", "Proxy", "asked_by_clients", "ours"]

Kind = Literal["socks5", "http"]
Client = Callable[[int, int, float], int]
"""From the port of a proxy, that of a target, and a time: how often all went well."""

_CLIENTS: Final = 2
_READY_SECONDS: Final = 10.0
_PYTHON: Final = generator.ROOT / ".venv-peers" / "bin" / "python"
"""Whose environment has the proxies from PyPI: the newest want a newer Python than we do."""
_PATH: Final = os.pathsep.join((str(_PYTHON.parent), os.environ.get("PATH", "")))


@dataclass(frozen=True)
class Proxy:
    """One that can be installed. It carries what clients ask for, and so is no relay."""

    name: str
    program: str
    package: str
    command: Callable[[int, Path], list[str]]
    """From a port and a folder to the words behind the program."""

    def missing(self) -> str | None:
        if shutil.which(self.program, path=_PATH):
            return None
        return f"{self.name} is missing: {self.package}"

    def version(self) -> str:
        how, _, package = self.package.rpartition(" ")
        if how == "make":
            script = f"from importlib.metadata import version; print(version({self.name!r}))"
            words = [str(_PYTHON), "-c", script]
        else:
            words = ["dpkg-query", "-W", "-f", "${Version}", package]
        found = subprocess.run(words, capture_output=True, text=True, check=False)
        return found.stdout.strip() or "?"

    @contextmanager
    def relay(self, targets: Mapping[str, str]) -> Iterator[Relaying]:
        raise BenchmarkError(f"{self.name} is a proxy and no relay")
        yield  # for the type of it

    @contextmanager
    def serving(self, port: int) -> Iterator[int]:
        """The process."""
        program = shutil.which(self.program, path=_PATH)
        if program is None:
            raise BenchmarkError(str(self.missing()))
        with (
            tempfile.TemporaryDirectory() as folder,
            _process([program, *self.command(port, Path(folder))], port) as pid,
        ):
            yield pid


def _microsocks(port: int, folder: Path) -> list[str]:
    return ["-i", "127.0.0.1", "-p", str(port)]


def _danted(port: int, folder: Path) -> list[str]:
    conf = folder / "danted.conf"
    conf.write_text(
        f"""
logoutput: /dev/null
internal: 127.0.0.1 port = {port}
external: lo
socksmethod: none
clientmethod: none
user.unprivileged: nobody
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
"""
    )
    return ["-f", str(conf), "-p", str(folder / "danted.pid"), "-N", "2"]


def _tinyproxy(port: int, folder: Path) -> list[str]:
    conf = folder / "tinyproxy.conf"
    conf.write_text(
        f"Port {port}\nListen 127.0.0.1\nTimeout 60\nLogLevel Critical\nMaxClients 100\n"
        f'LogFile "{folder}/log"\n'
    )
    return ["-d", "-c", str(conf)]


def _pproxy(port: int, folder: Path) -> list[str]:
    return ["-l", f"socks5://127.0.0.1:{port}"]


def _asyncio_socks_server(port: int, folder: Path) -> list[str]:
    return ["--host", "127.0.0.1", "--port", str(port), "--log-level", "ERROR"]


def _proxy_py(port: int, folder: Path) -> list[str]:
    words = ["--hostname", "127.0.0.1", "--port", str(port), "--log-level", "CRITICAL"]
    return [*words, "--num-workers", "1", "--num-acceptors", "1"]


PROXIES: Final = (
    Proxy("microsocks", "microsocks", "apt-get install microsocks", _microsocks),
    Proxy("dante", "danted", "apt-get install dante-server", _danted),
    Proxy("tinyproxy", "tinyproxy", "apt-get install tinyproxy-bin", _tinyproxy),
    Proxy("pproxy", "pproxy", "make bench", _pproxy),
    Proxy(
        "asyncio-socks-server",
        "asyncio_socks_server",
        "make bench",
        _asyncio_socks_server,
    ),
    Proxy("proxy.py", "proxy", "make bench", _proxy_py),
)


@contextmanager
def _process(words: list[str], port: int) -> Iterator[int]:
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, stdout=quiet, stderr=quiet) as process:
        try:
            until = time.monotonic() + _READY_SECONDS
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if time.monotonic() > until or process.poll() is not None:
                        raise BenchmarkError(f"{words[0]} does not listen") from None
                    time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def ours(peer: Qanat, kind: Kind | Literal["mixed"]) -> Iterator[tuple[int, int]]:
    """Our program as people run it: its port, and its process."""
    port = free_port()
    words = [peer.python, "-m", "qanat", "proxy", f"--{kind}", f"127.0.0.1:{port}"]
    with _process([*words, "--control", "off", "--log-level", "warn"], port) as pid:
        yield port, pid


@contextmanager
def _serving(peer: Peer, kind: Kind, target: int) -> Iterator[tuple[int, int | None]]:
    """Where to ask, and the process if there is one."""
    if isinstance(peer, Direct):
        yield target, None
        return
    if isinstance(peer, Qanat):
        with ours(peer, kind) as found:
            yield found
    elif isinstance(peer, Proxy):
        port = free_port()
        with peer.serving(port) as pid:
            yield port, pid
    else:
        raise BenchmarkError(f"{peer.name} is no proxy")


@contextmanager
def asked_by_clients(
    peer: Peer,
    setting: Setting,
    kind: Kind,
    target: int,
    clients: tuple[Client, Client],
    names: tuple[str, str],
) -> Iterator[Sample]:
    """Samples of two series: how many a second went well, and CPU in µs for each, of what clients
    in processes of their own ask a proxy for; the second kind of client is for no proxy at all."""
    ask = clients[1] if isinstance(peer, Direct) else clients[0]
    rate, cost = names
    with (
        _serving(peer, kind, target) as (port, pid),
        multiprocessing.get_context("fork").Pool(_CLIENTS) as pool,
    ):

        def sample(seconds: float = setting.seconds) -> dict[str, float]:
            before = 0.0 if pid is None else measure.cpu_seconds(pid)
            try:
                count = sum(pool.starmap(ask, [(port, target, seconds)] * _CLIENTS))
            except OSError as error:
                raise BenchmarkError(str(error)) from None
            if not count:
                raise BenchmarkError("not one of them went well")
            found = {rate: count / seconds}
            if pid is not None:
                found[cost] = (measure.cpu_seconds(pid) - before) / count * 1e6
            return found

        sample(setting.warm_up)
        yield sample
