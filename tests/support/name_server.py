"""A real name server (dnsmasq) whose answers the test changes."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from ipaddress import ip_address
from pathlib import Path

from tests.support.netns import Namespace
from tests.support.wait import wait_until

__all__ = ["NameServer", "name_server"]


class NameServer:
    """Answers for everything under ``test``, and says that the rest does not exist."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        hosts: Path,
        address: str,
        inside: Namespace | None,
    ) -> None:
        self._process = process
        self._hosts = hosts
        self._inside = inside
        self.address = address
        """``host:port``."""

    def answer(self, names: Mapping[str, Sequence[str]]) -> None:
        """From now on these names have these addresses, and no other name has any."""
        lines = [f"{address} {name}\n" for name, given in names.items() for address in given]
        self._hosts.write_text("".join(lines))
        self.signal(signal.SIGHUP)
        self.wait_for(names)

    def wait_for(self, names: Mapping[str, Sequence[str]]) -> None:
        """Wait until these names have these addresses."""
        wanted = [(name, address) for name, given in names.items() for address in given]
        with self._inside.entered() if self._inside else nullcontext():
            wait_until(lambda: all(self._answers(*one) for one in wanted), what="the new answer")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def _answers(self, name: str, address: str) -> bool:
        wanted = ip_address(address)
        kind = 1 if wanted.version == 4 else 28
        labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
        question = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0"
        assert self._process.poll() is None, "the name server has ended"
        host, _, port = self.address.rpartition(":")
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.2)
            sock.connect((host, int(port)))
            try:
                sock.send(question + struct.pack(">HH", kind, 1))
                return wanted.packed in sock.recv(4096)
            except OSError:
                return False


@contextmanager
def name_server(
    directory: Path, *, ttl: int, port: int = 0, inside: Namespace | None = None
) -> Iterator[NameServer]:
    host = "127.0.0.1"
    hosts = directory / "names"
    hosts.write_text(f"{host} up.test\n")
    if port == 0:
        port = _free_port(host)
    words = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        f"--user={'root' if os.geteuid() == 0 else ''}",
        "--group=",
        "--bind-interfaces",
        f"--listen-address={host}",
        f"--port={port}",
        "--no-resolv",
        "--no-hosts",
        "--local=/test/",
        f"--addn-hosts={hosts}",
        f"--local-ttl={ttl}",
        "--neg-ttl=1",
    ]
    before = inside.before if inside else ()
    with subprocess.Popen([*before, *words], stderr=subprocess.DEVNULL) as process:
        try:
            server = NameServer(process, hosts, f"{host}:{port}", inside)
            # Before it listens, the signal to read its names again would end it.
            server.wait_for({"up.test": [host]})
            yield server
        finally:
            # A stopped one does not hear SIGTERM.
            process.kill()


def _free_port(host: str) -> int:
    """One that nobody has for either protocol."""
    while True:
        with socket.create_server((host, 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            port: int = tcp.getsockname()[1]
            try:
                udp.bind((host, port))
            except OSError:
                continue
            return port
