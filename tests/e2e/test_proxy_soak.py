"""A proxy for a long time: exchanges by every kind whose every byte is known, beside resets,
garbage, stalled handshakes, targets that refuse, and reloads. At the end nothing was wrong and
nothing is left.

``make soak`` runs it for ten minutes; as a test among others it is short. QANAT_SOAK_SECONDS is the
length, QANAT_SOAK_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.peers import pattern, reset
from tests.support.proxy_process import address, proxy
from tests.support.relay_process import RelayProcess
from tests.support.wait import wait_until

__all__: list[str] = []

SECONDS = float(os.environ.get("QANAT_SOAK_SECONDS", "6"))
SEED = int(os.environ.get("QANAT_SOAK_SEED", str(random.SystemRandom().randrange(1 << 30))))
CLIENTS = 8
PATIENCE = 20.0
MIB = 1 << 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS * 1.5 + 120)]


class Echo:
    """A target that says everything back and ends when its client does."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._say_back, args=(sock,), daemon=True).start()

    def _say_back(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            sock.settimeout(PATIENCE)
            while data := sock.recv(65536):
                sock.sendall(data)

    def close(self) -> None:
        # Wakes the call that waits, which closing does not.
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def socks5(sock: socket.socket, port: int) -> None:
    sock.sendall(b"\5\2\0\2" + b"\5\1\0\1\x7f\0\0\1" + struct.pack("!H", port))
    said = exactly(sock, 12)
    assert said[:4] == b"\5\0\5\0", said


def socks4a(sock: socket.socket, port: int) -> None:
    sock.sendall(b"\4\1" + struct.pack("!H", port) + b"\0\0\0\1me\0localhost\0")
    said = exactly(sock, 8)
    assert said[:2] == b"\0\x5a", said


def connect(sock: socket.socket, port: int) -> None:
    sock.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % port)
    said = b""
    while not said.endswith(b"\r\n\r\n"):
        said += exactly(sock, 1)
    assert said.startswith(b"HTTP/1.1 200 "), said


OPENINGS: tuple[Callable[[socket.socket, int], None], ...] = (socks5, socks4a, connect)


def exactly(sock: socket.socket, count: int) -> bytes:
    heard = b""
    while len(heard) < count:
        part = sock.recv(count - len(heard))
        assert part, f"an end after {len(heard)} of {count} bytes"
        heard += part
    return heard


class Client:
    """One thread of many: mostly well-behaved."""

    def __init__(self, place: tuple[str, int], echo: Echo, site: str, seed: int) -> None:
        self._place = place
        self._echo = echo
        self._site = site.removeprefix("http://").encode()
        self.dice = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.complaints: list[str] = []

    def run(self, until: float) -> None:
        acts = [
            *[self.talk] * 6,
            *[self.ask] * 4,
            self.upload,
            self.break_off,
            self.garble,
            self.stall,
            self.be_refused,
        ]
        while time.monotonic() < until and len(self.complaints) < 5:
            act = self.dice.choice(acts)
            try:
                with socket.create_connection(self._place, timeout=PATIENCE) as sock:
                    act(sock)
                self.done[act.__name__] += 1
            except (OSError, AssertionError) as error:
                self.complaints.append(f"{act.__name__}: {error!r}")

    def talk(self, sock: socket.socket) -> None:
        """A tunnel, some bytes there and back, and the end of one direction before the other."""
        self.dice.choice(OPENINGS)(sock, self._echo.port)
        said = pattern(self.dice.choice((1, 100, 70_000, 400_000)), self.dice.randrange(100))
        sender = threading.Thread(target=self._say, args=(sock, said))
        sender.start()
        heard = bytearray()
        while part := sock.recv(65536):
            heard += part
        sender.join()
        assert bytes(heard) == said, f"{len(heard)} of {len(said)} bytes came back"

    def _say(self, sock: socket.socket, said: bytes) -> None:
        with suppress(OSError):
            sock.sendall(said)
            sock.shutdown(socket.SHUT_WR)

    def ask(self, sock: socket.socket) -> None:
        """Several requests on one connection, sometimes all at once."""
        count = self.dice.randrange(1, 5)
        requests = [
            b"GET http://%b/%d HTTP/1.1\r\nHost: %b\r\n\r\n" % (self._site, number, self._site)
            for number in range(count)
        ]
        if self.dice.random() < 0.3:
            sock.sendall(b"".join(requests))
            requests = [b""] * count
        for number, request in enumerate(requests):
            sock.sendall(request)
            assert self._answer(sock) == b"GET /%d" % number

    def upload(self, sock: socket.socket) -> None:
        size = self.dice.choice((10, 5_000, 300_000))
        head = b"POST http://%b/ HTTP/1.1\r\nHost: %b\r\n" % (self._site, self._site)
        if self.dice.random() < 0.5:
            sock.sendall(head + b"Content-Length: %d\r\n\r\n" % size + bytes(size))
        else:
            chunk = b"%x\r\n%b\r\n" % (size, bytes(size))
            sock.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n")
        assert self._answer(sock) == b"%d bytes" % size

    def _answer(self, sock: socket.socket) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += exactly(sock, 1)
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        return exactly(sock, int(length))

    def break_off(self, sock: socket.socket) -> None:
        """A reset in the middle of everything."""
        self.dice.choice(OPENINGS)(sock, self._echo.port)
        sock.setblocking(False)
        with suppress(BlockingIOError):
            sock.send(bytes(self.dice.choice((1, 1_000_000))))
        reset(sock)

    def garble(self, sock: socket.socket) -> None:
        """What is no protocol ends, and soon."""
        begin = self.dice.choice((b"", b"\5", b"\4\1", b"GET ", b"CONNECT x", b"\x16\3\1"))
        with suppress(OSError):
            sock.sendall(begin + self.dice.randbytes(self.dice.randrange(200)) + b"\r\n\r\n")
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass

    def stall(self, sock: socket.socket) -> None:
        """Half of a handshake, and then nothing more: the proxy ends it."""
        sock.sendall(self.dice.choice((b"\5", b"\5\1\0\5\1", b"\4\1\0", b"GET http://")))
        with suppress(ConnectionResetError):
            while sock.recv(65536):
                pass

    def be_refused(self, sock: socket.socket) -> None:
        """Nobody listens at port 1."""
        sock.sendall(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n")
        said = b""
        while part := sock.recv(65536):
            said += part
            if b"\r\n\r\n" in said:
                break
        assert said.startswith(b"HTTP/1.1 502 "), said


@contextmanager
def reloading(process: RelayProcess, file: Path, seed: int, told: Counter[str]) -> Iterator[None]:
    """Other rules, limits and times now and then, none of which forbids anything that is done."""
    ended = threading.Event()
    dice = random.Random(seed)
    complaints: list[BaseException] = []

    def run() -> None:
        while not ended.wait(0.3):
            file.write_text(configuration(dice))
            try:
                process.ask("/reload", method="POST")
                told["reloads"] += 1
            except BaseException as error:
                complaints.append(error)
                return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert complaints == []


def configuration(dice: random.Random) -> str:
    denied = [f'"deny port={dice.randrange(2, 1000)}"' for _ in range(dice.randrange(3))]
    return (
        f'mixed = "127.0.0.1:0"\nhandshake_timeout = 1\nrules = [{", ".join(denied)}]\n'
        f"idle_timeout = {dice.randrange(30, 90)}\n"
        f"[limits]\nmax_connections = {dice.randrange(1_000, 2_000)}\n"
    )


def load(place: tuple[str, int], echo: Echo, site: str, seconds: float, seed: int) -> list[Client]:
    clients = [Client(place, echo, site, seed + number) for number in range(CLIENTS)]
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=client.run, args=(until,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return clients


def test_soak(tmp_path: Path, site: str) -> None:
    sys.stdout.write(f"QANAT_SOAK_SEED={SEED}\n")
    file = tmp_path / "proxy.toml"
    file.write_text(configuration(random.Random(SEED)))
    echo = Echo()
    told: Counter[str] = Counter()
    try:
        with proxy(tmp_path, "-c", str(file)) as process:
            process.ready()
            host, _, port = address(process).rpartition(":")
            place = (host, int(port))
            # What is made at first use is made.
            warm = load(place, echo, site, min(3.0, SECONDS / 4), SEED + 1_000)
            settle(process)
            descriptors, memory = process.descriptors, process.memory
            with reloading(process, file, SEED, told):
                clients = load(place, echo, site, SECONDS, SEED)
            settle(process)
            for client in warm + clients:
                told.update(client.done)
                assert client.complaints == []
            assert min(told[act] for act in ("talk", "ask", "break_off", "garble", "stall")) > 0
            assert told["reloads"] > SECONDS
            wait_until(
                lambda: process.descriptors <= descriptors + 2 * pipes(process),
                what="descriptors are given back",
            )
            assert process.memory <= memory + 16 * MIB, told
            assert process.stop() == 0
            log = process.log.read_text()
            assert "Traceback" not in log
            assert '"ERROR"' not in log
    finally:
        echo.close()
    sys.stdout.write(f"{dict(told)}\n")


def settle(process: RelayProcess) -> None:
    """Nobody is connected any more."""
    wait_until(lambda: process.flows() == [], what="all flows have ended")
    wait_until(
        lambda: all(one["open"] == 0 for one in process.ask("/stats")["clients"]),
        what="all clients have gone",
    )


def pipes(process: RelayProcess) -> int:
    return sum(worker["pipes_idle"] for worker in process.stats()["workers"])
