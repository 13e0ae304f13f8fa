"""The border to Python: what do a flow that Python begins, a look at its bytes and a TLS handshake
cost, and what does such a flow take while it rests?"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.failure import BenchmarkError
from benchmarks.peers import Peer
from benchmarks.question import Absolute, Question, Sample, Series, Setting
from qanat._engine import Desk, Engine
from qanat.plan import CertificatePlan, JoinPlan, TlsAcceptPlan, TlsListenPlan, to_json

__all__ = ["QUESTION"]

_LOWER = "border, lower: time of the call"
_SHORT = "border, short flow lowered: CPU of the process"
_SMALL = "border, read and write of 64 B"
_LARGE = "border, read and write of 64 KiB"
_SHAKE = "border, TLS handshake: CPU of the process"
_REST = "border, flow at rest: memory"

_Pair = tuple[socket.socket, socket.socket]


class _Border:
    """An engine with one worker and a desk, in the process that measures."""

    def __init__(self, folder: Path) -> None:
        self.engine = Engine(1)
        self.desk = Desk(self.engine, self.engine.open_group("{}"))
        endpoint = self.desk.endpoint("border", "")
        self.plan = to_json(
            JoinPlan(
                endpoint=endpoint,
                target="example.com:443",
                client="192.0.2.1:40000",
                peer="192.0.2.9:443",
                user="alice",
                idle_timeout=600.0,
                linger=30.0,
            )
        )
        files = (str(folder / "border.crt"), str(folder / "border.key"))
        _certificate(*files)
        tls = TlsListenPlan(certificates=(CertificatePlan(cert=files[0], key=files[1]),))
        self.accept = to_json(TlsAcceptPlan(tls=tls))

    def close(self) -> None:
        self.desk.shutdown()
        self.engine.shutdown()

    def wait(self, count: int, kind: str) -> None:
        """Until so many reports of a kind have come."""
        while count:
            select.select([self.desk], [], [], 10)
            count -= sum(1 for report in self.desk.take() if report[1] == kind)

    def lower(self, client: socket.socket, target: socket.socket) -> None:
        self.desk.lower(client.fileno(), target.fileno(), self.plan)
        client.detach()
        target.detach()


def _certificate(cert: str, key: str) -> None:
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    words += ["-subj", "/CN=border", "-days", "2", "-keyout", key, "-out", cert]
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def _pairs(count: int) -> list[_Pair]:
    pairs = []
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        for _ in range(count):
            far = socket.create_connection(server.getsockname())
            near, _ = server.accept()
            pairs.append((near, far))
    return pairs


def _cpu() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def _lowering(border: _Border, count: int) -> tuple[float, float]:
    """Microseconds of a call, and of CPU in all for a flow that says one word and ends."""
    clients, targets = _pairs(count), _pairs(count)
    ends = [end for _, end in clients + targets]
    began = _cpu()
    lower, plan = border.desk.lower, border.plan
    called = time.perf_counter()
    for (client, _), (target, _) in zip(clients, targets, strict=True):
        lower(client.fileno(), target.fileno(), plan)
    called = time.perf_counter() - called
    for near, _ in clients + targets:
        near.detach()
    for end in ends:
        end.send(b"x")
    for end in ends:
        end.recv(1)
        end.close()
    border.wait(count, "ended")
    spent = _cpu() - began
    return called / count * 1e6, spent / count * 1e6


def _crossing(border: _Border, size: int, count: int) -> float:
    """Microseconds of a write and a read that finds something, together."""
    ((near, far),) = _pairs(1)
    leg = border.desk.adopt(near.detach())
    data, seconds = b"x" * size, 0.0
    read, write = border.desk.read, border.desk.write
    for _ in range(count):
        far.sendall(data)
        left = size
        while left:
            began = time.perf_counter()
            part = read(leg, left)
            took = time.perf_counter() - began
            if part is None:
                border.wait(1, "readable")
            else:
                seconds += took
                left -= len(part)
        began = time.perf_counter()
        taken = write(leg, data)
        seconds += time.perf_counter() - began
        assert taken == size
        while taken:
            taken -= len(far.recv(taken))
    far.close()
    border.desk.abort(leg)
    return seconds / count * 1e6


def _shaking(border: _Border, count: int) -> float:
    """Microseconds of CPU for a full handshake, Python's reports included; the clients' are taken
    off."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    spent_by_client = 0.0

    def shake(pairs: list[_Pair]) -> None:
        nonlocal spent_by_client
        for _, far in pairs:
            with context.wrap_socket(far):
                pass
        spent_by_client = time.thread_time()

    pairs = _pairs(count)
    began = _cpu()
    client = threading.Thread(target=shake, args=(pairs,))
    legs = []
    for near, _ in pairs:
        leg = border.desk.adopt(near.detach())
        border.desk.tls_accept(leg, border.accept)
        legs.append(leg)
    client.start()
    border.wait(count, "shaken")
    client.join()
    spent = _cpu() - began - spent_by_client
    for leg in legs:
        border.desk.abort(leg)
    return spent / count * 1e6


def _resting(border: _Border, count: int) -> float:
    """KiB of this process for a flow that was used and rests. The sockets are the kernel's."""

    def resident() -> int:
        gc.collect()
        status = Path("/proc/self/statm").read_text().split()
        return int(status[1]) * os.sysconf("SC_PAGE_SIZE")

    clients, targets = _pairs(count), _pairs(count)
    ends = [end for _, end in clients + targets]
    before = resident()
    for (client, _), (target, _) in zip(clients, targets, strict=True):
        border.lower(client, target)
    for end in ends:
        end.send(b"x")
    for end in ends:
        end.recv(1)
    after = resident()
    for end in ends:
        end.close()
    border.wait(count, "ended")
    return (after - before) / count / 1024


def _measure(count: int) -> dict[str, float]:
    # Descriptors are the bound: four for each flow, two of them the engine's.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        border = _Border(Path(folder))
        try:
            _lowering(border, 10)
            rest = _resting(border, count)
            call, short = _lowering(border, count)
            return {
                _LOWER: call,
                _SHORT: short,
                _SMALL: _crossing(border, 64, count),
                _LARGE: _crossing(border, 65_536, count // 2),
                _SHAKE: _shaking(border, count // 4),
                _REST: rest,
            }
        finally:
            border.close()


@contextmanager
def _open(peer: Peer, setting: Setting) -> Iterator[Sample]:
    count = 100 if setting.quick else 2_000

    def sample() -> dict[str, float]:
        # A process each time: memory that an earlier crowd has left would make the next look cheap.
        words = [sys.executable, "-m", "benchmarks.boundary", str(count)]
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise BenchmarkError(ran.stderr.strip())
        sampled: dict[str, float] = json.loads(ran.stdout)
        return sampled

    yield sample


QUESTION = Question(
    name="boundary",
    text=__doc__,
    series=(
        Series(_LOWER, "us", "less", 1),
        Series(_SHORT, "us", "less", 1),
        Series(_SMALL, "us", "less", 1),
        Series(_LARGE, "us", "less", 1),
        Series(_SHAKE, "us", "less", 0),
        Series(_REST, "KiB", "less", 2),
    ),
    bars=(Absolute(_LOWER, 20.0), Absolute(_REST, 1.2)),
    peers=("qanat",),
    open=_open,
    warm=False,
    rounds=3,
)


if __name__ == "__main__":
    json.dump(_measure(int(sys.argv[1])), sys.stdout)
