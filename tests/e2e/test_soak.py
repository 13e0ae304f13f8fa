"""Everything at once for a long time: exchanges whose every byte is known, resets, slow peers,
killed targets and flows, reloads. At the end nothing was wrong and nothing is left.

``make soak`` runs it for ten minutes; as a test among others it is short. QANAT_SOAK_SECONDS is the
length, QANAT_SOAK_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support import exchange
from tests.support.datagrams import numbered, udp_client, udp_target
from tests.support.exchange import Order, carry_out
from tests.support.peers import Address, beside, connect
from tests.support.relay_process import RelayProcess
from tests.support.wait import wait_until

SECONDS = float(os.environ.get("QANAT_SOAK_SECONDS", "18"))
SEED = int(os.environ.get("QANAT_SOAK_SEED", str(random.SystemRandom().randrange(1 << 30))))
CLIENTS = 16
HOST = f"127.79.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"
"""Of this process alone, and its ports are below those that the kernel gives to clients: a target
that is killed finds its port free when it comes back."""
MIB = 1 << 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS * 1.5 + 120)]


class Targets:
    """One target that lives and two that are killed now and then."""

    def __init__(self, directory: Path) -> None:
        self.complaints = directory / "complaints"
        self.complaints.write_text("")
        self.ports = [9_001, 9_002, 9_003]
        self._running: list[subprocess.Popen[bytes] | None] = [None, None, None]
        for number in range(3):
            self._start(number)

    def kill(self, number: int) -> None:
        running = self._running[number]
        assert number > 0
        assert running is not None
        running.kill()
        running.wait()
        self._start(number)

    def end(self) -> None:
        for running in self._running:
            if running is not None:
                running.kill()
                running.wait()

    def _start(self, number: int) -> None:
        port = self.ports[number]
        words = [sys.executable, exchange.__file__, HOST, str(port), str(self.complaints)]
        self._running[number] = subprocess.Popen(words)
        wait_until(lambda: listens(port), what="the target listens")


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((HOST, port)) == 0


class Scene:
    """What the relay's configuration is at the moment."""

    def __init__(self, path: Path, targets: Targets, datagrams: str) -> None:
        self.steady: Address = (HOST, 8_001)
        self.mortal: Address = (HOST, 8_002)
        self.packets: Address = (HOST, 8_003)
        self._spare = [(HOST, port) for port in range(8_004, 8_008)]
        self._path = path
        self._targets = targets
        self._datagrams = datagrams
        self.write(random.Random(0))

    def write(self, dice: random.Random) -> None:
        """The same endpoints with another target for the mortal one, and others beside them."""
        ports = self._targets.ports
        endpoints = [
            (self.steady, f"{HOST}:{ports[0]}", ""),
            (self.mortal, f"{HOST}:{ports[dice.choice((1, 2))]}", ""),
            (self.packets, self._datagrams, "network = {use_udp = true, no_tcp = true}"),
        ]
        for address in self._spare:
            if dice.random() < 0.5:
                timeout = dice.randrange(1, 9)
                network = f"network = {{idle_timeout = {timeout}}}"
                endpoints.append((address, f"{HOST}:{ports[0]}", network))
        fresh = self._path.with_suffix(".new")
        fresh.write_text(
            "".join(
                f'[[endpoints]]\nlisten = "{host}:{port}"\nremote = "{remote}"\n{more}\n'
                for (host, port), remote, more in endpoints
            )
        )
        fresh.replace(self._path)


class Traffic:
    """Clients that exchange for as long as they are let, and what they have to complain of."""

    def __init__(self, scene: Scene, dice: random.Random) -> None:
        self._scene = scene
        self._seeds = [dice.randrange(1 << 30) for _ in range(CLIENTS)]
        self._over = threading.Event()
        self.complaints: list[str] = []
        self.done: Counter[str] = Counter()
        self.bytes = 0

    @contextmanager
    def flowing(self) -> Iterator[None]:
        running = [beside(self._exchange, random.Random(seed)) for seed in self._seeds]
        running.append(beside(self._send_datagrams))
        try:
            yield
        finally:
            self._over.set()
            for one in running:
                one.result(90)

    def _exchange(self, dice: random.Random) -> None:
        while not self._over.is_set():
            steady = dice.random() < 0.6
            fault = "none"
            if dice.random() < 0.3:
                fault = dice.choice(("client_reset", "target_reset", "slow_client", "slow_target"))
            most = dice.choice((0, 100, 3_000, 3_000, 60_000, 60_000, 400_000, 4_000_000))
            order = Order(
                up=dice.randrange(most + 1),
                down=dice.randrange(most + 1),
                seed=dice.randrange(1 << 30),
                fault=fault,  # type: ignore[arg-type]
                whole=steady and not fault.endswith("reset"),
            )
            try:
                with connect(self._scene.steady if steady else self._scene.mortal) as sock:
                    sock.sendall(order.encode())
                    outcome = carry_out(sock, order, is_client=True)
            except OSError as error:
                if steady:
                    self.complaints.append(f"client: {order}: {error}")
                continue
            complaint = outcome.complaint(order, order.down)
            if complaint:
                self.complaints.append(f"client: {complaint}")
            self.done[f"{'steady' if steady else 'mortal'} {fault}"] += 1
            self.bytes += order.up + order.down

    def _send_datagrams(self) -> None:
        """Never more under way than a socket holds, so that none may be lost."""
        dice = random.Random(self._seeds[0])
        with udp_client(self._scene.packets) as client:
            number = 0
            while not self._over.is_set():
                burst = [(number + n, dice.randrange(4, 1_400)) for n in range(dice.randrange(9))]
                for one, size in burst:
                    client.send(numbered(one, size))
                for one, size in burst:
                    try:
                        heard = client.recv(65_535)
                    except TimeoutError:
                        self.complaints.append(f"datagram {one} was lost")
                        return
                    if heard != numbered(one, size):
                        self.complaints.append(f"datagram {one} is not what was sent")
                        return
                number += len(burst)
                self.done["datagrams"] += len(burst)
                time.sleep(0.002)


def disturb(relay: RelayProcess, scene: Scene, targets: Targets, dice: random.Random) -> str:
    """One disturbance; what it was."""
    what = dice.choice(("reload", "reload", "hup", "kill target", "kill flow", "crowd", "quiet"))
    match what:
        case "reload":
            scene.write(dice)
            relay.reload()
        case "hup":
            scene.write(dice)
            relay.signal(signal.SIGHUP)
        case "kill target":
            targets.kill(dice.choice((1, 2)))
        case "kill flow":
            mortal = f"{scene.mortal[0]}:{scene.mortal[1]}"
            found = [flow["id"] for flow in relay.flows() if flow["listener"] == mortal]
            if found:
                # It may have ended by itself meanwhile.
                with suppress(AssertionError):
                    relay.ask(f"/flows/{dice.choice(found)}/kill", "POST")
        case "crowd":
            held = []
            for _ in range(100):
                with suppress(OSError):
                    held.append(connect(scene.mortal))
            for sock in held:
                sock.close()
    return what


def echo_for_ever(sock: socket.socket) -> None:
    with suppress(OSError):
        while True:
            said, sender = sock.recvfrom(65_535)
            if said == b"end":
                return
            sock.sendto(said, sender)


class Holdings:
    """What the relay holds while nothing goes on."""

    def __init__(self, relay: RelayProcess) -> None:
        wait_until(lambda: not [f for f in relay.flows() if f["protocol"] == "tcp"], 40)
        workers = relay.stats()["workers"]
        self.pipes_lent = sum(worker["pipes_lent"] for worker in workers)
        self.flows = sum(worker["flows"] for worker in workers)
        # Pipes are kept for the next flow, up to a limit of their own.
        idle = sum(worker["pipes_idle"] for worker in workers)
        self.descriptors = relay.descriptors - 2 * idle
        self.threads = relay.threads
        self.memory = relay.memory


def pool_of_threads() -> int:
    """The bound of asyncio's pool in the relay's process."""
    return min(32, (os.cpu_count() or 1) + 4)


def test_soak(start: Start, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    targets = Targets(tmp_path)
    counted: Counter[str] = Counter()
    try:
        with udp_target() as datagrams:
            echoing = beside(echo_for_ever, datagrams)
            datagrams.settimeout(None)
            scene = Scene(tmp_path / "relay.toml", targets, address_of(datagrams))
            relay = start("-c", str(tmp_path / "relay.toml"))
            warm = Traffic(scene, dice)
            with warm.flowing():
                disturbed(relay, scene, targets, dice, SECONDS * 0.25)
            before = Holdings(relay)
            traffic = Traffic(scene, dice)
            with traffic.flowing():
                counted = disturbed(relay, scene, targets, dice, SECONDS * 0.75)
            after = Holdings(relay)
            with udp_client(("127.0.0.1", datagrams.getsockname()[1])) as ending:
                ending.send(b"end")
            echoing.result(10)
    finally:
        targets.end()
    story = f"seed {SEED}: {dict(traffic.done)}, {traffic.bytes / MIB:.0f} MiB, {dict(counted)}"
    complaints = [
        *warm.complaints,
        *traffic.complaints,
        *targets.complaints.read_text().split("\n"),
    ]
    assert [line for line in complaints if line] == [], story
    assert traffic.done.total() > SECONDS, story
    assert after.pipes_lent == 0, story
    # The association of each client of datagrams may still be there.
    assert after.flows <= 2, story
    # The pool for what would block the program's loop may have grown, up to its bound.
    assert after.threads <= before.threads + pool_of_threads(), story
    assert after.descriptors <= before.descriptors + 8, story
    assert after.memory <= before.memory + 10 * MIB, story
    assert relay.stderr == "", story
    known = {"client_closed", "target_closed", "client_reset", "target_reset"}
    # A target that is killed while it is being connected to.
    known |= {"connect_refused", "connect_failed"}
    reasons = Counter(record["reason"] for record in relay.ended(protocol="tcp"))
    assert set(reasons) <= known | {"killed"}, f"{story} {reasons}"
    assert relay.stop() == 0


def disturbed(
    relay: RelayProcess, scene: Scene, targets: Targets, dice: random.Random, seconds: float
) -> Counter[str]:
    """Disturbances one after the other for so long."""
    done: Counter[str] = Counter()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done[disturb(relay, scene, targets, dice)] += 1
        time.sleep(dice.random() * 0.6)
    return done


def address_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()
    return f"{host}:{port}"
