"""Starts and stops the relays that are compared, each set up as its own users would for speed.

A peer is given roles ("echo", "udp-sink", ...) and the target address of each; it relays one port
on loopback to each of them. ``direct`` is no relay at all: the limit of the machine.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks import measure
from benchmarks.failure import BenchmarkError

__all__ = [
    "PEERS",
    "Certificate",
    "Direct",
    "Haproxy",
    "Nginx",
    "Peer",
    "Qanat",
    "Relaying",
    "Socat",
    "free_port",
]

READY_LIMIT = 10.0
WORKERS = 2


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM, with ``both`` in one file as haproxy wants them."""

    chain: Path
    key: Path
    both: Path


@dataclass(frozen=True, slots=True)
class Relaying:
    """A relay that is up."""

    addresses: Mapping[str, str]
    """Where to connect to, by role."""
    roots: tuple[int, ...] = ()
    """The processes that were started; their children count too."""
    seconds_to_listen: float = 0.0
    """From the start of the first process until the last address answered."""

    def cpu_seconds(self) -> float:
        return sum(measure.cpu_seconds(root) for root in self.roots)

    def pss_bytes(self) -> int:
        return sum(measure.pss_bytes(root) for root in self.roots)

    def descriptors(self) -> int:
        return sum(measure.descriptors(root) for root in self.roots)

    def threads(self) -> int:
        return sum(measure.threads(root) for root in self.roots)


class Peer(Protocol):
    @property
    def name(self) -> str: ...

    def missing(self) -> str | None:
        """What must be installed first, or None."""

    def version(self) -> str: ...

    def relay(self, targets: Mapping[str, str]) -> AbstractContextManager[Relaying]: ...


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A free port below the ephemeral range, where no outgoing connection can take it."""
    for _ in range(1000):
        port = random.randrange(20_000, 30_000)  # noqa: S311 -- no secret
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise BenchmarkError("no free port between 20000 and 30000")


def is_udp(role: str) -> bool:
    return role.startswith("udp")


def _listen(roles: Sequence[str]) -> dict[str, str]:
    """An address for each role."""
    ports: dict[str, int] = {}
    for role in roles:
        kind = socket.SOCK_DGRAM if is_udp(role) else socket.SOCK_STREAM
        port = free_port(kind)
        while port in ports.values():
            port = free_port(kind)
        ports[role] = port
    return {role: f"127.0.0.1:{port}" for role, port in ports.items()}


def _answers(role: str, address: str) -> bool:
    host, _, port = address.rpartition(":")
    if not is_udp(role):
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((host, int(port))) == 0
    # A bound UDP socket can't be seen by talking to it.
    number = int.from_bytes(socket.inet_aton(host), sys.byteorder)
    wanted = f"{number:08X}:{int(port):04X}"
    lines = Path("/proc/net/udp").read_text().splitlines()
    return any(line.split(maxsplit=2)[1] == wanted for line in lines[1:])


@contextmanager
def run(commands: Sequence[Sequence[str]], listen: Mapping[str, str]) -> Iterator[Relaying]:
    """Start processes, wait until every address answers, and end them afterwards."""
    processes: list[subprocess.Popen[bytes]] = []
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        try:
            for command in commands:
                processes.append(  # noqa: PERF401 -- what was started must be known on error
                    subprocess.Popen(
                        list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output
                    )
                )
            waiting = list(listen.items())
            while waiting:
                waiting = [(role, where) for role, where in waiting if not _answers(role, where)]
                ended = next((each for each in processes if each.poll() is not None), None)
                if waiting and (ended or time.perf_counter() - start > READY_LIMIT):
                    output.seek(0)
                    text = output.read().decode(errors="replace").strip()[-2000:]
                    how = f"ended with {ended.returncode}" if ended else "does not listen"
                    raise BenchmarkError(f"{commands[0][0]} {how}: {text}")
                if waiting:
                    time.sleep(0.0005)
            yield Relaying(
                addresses=dict(listen),
                roots=tuple(process.pid for process in processes),
                seconds_to_listen=time.perf_counter() - start,
            )
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(3)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _first_line(command: Sequence[str]) -> str:
    result = subprocess.run(
        list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    lines = result.stdout.strip().splitlines()
    return lines[0].strip() if lines else "?"


@dataclass(frozen=True)
class Direct:
    name: str = "direct"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return "no relay"

    @contextmanager
    def relay(self, targets: Mapping[str, str]) -> Iterator[Relaying]:
        yield Relaying(addresses=dict(targets))


@dataclass(frozen=True)
class Nginx:
    """Stream module; reuseport (each worker its own queue) helps it with TCP and is needed for
    UDP, where otherwise datagrams of one client go to different workers."""

    name: str = "nginx"
    buffer: str | None = None
    """``proxy_buffer_size``; nginx's own default of 16k when None."""
    certificate: Certificate | None = None
    """To terminate TLS with."""

    def missing(self) -> str | None:
        return (
            None
            if shutil.which("nginx") and _nginx_module() is not None
            else (
                "nginx with its stream module is missing: "
                "apt-get install nginx-light libnginx-mod-stream"
            )
        )

    def version(self) -> str:
        return _first_line(["nginx", "-v"]).removeprefix("nginx version: nginx/")

    def configuration(self, targets: Mapping[str, str], listen: Mapping[str, str]) -> str:
        module = _nginx_module()
        lines = [
            "daemon off;",
            f"load_module {module};" if module else "",
            f"worker_processes {WORKERS};",
            "worker_rlimit_nofile 20000;",
            "pid nginx.pid;",
            "error_log error.log crit;",
            "events { worker_connections 16384; }",
            "stream {",
            "access_log off;",
            "tcp_nodelay on;",
            "proxy_half_close on;",
            f"proxy_buffer_size {self.buffer};" if self.buffer else "",
        ]
        if self.certificate:
            lines += [
                f"ssl_certificate {self.certificate.chain};",
                f"ssl_certificate_key {self.certificate.key};",
                "ssl_protocols TLSv1.3;",
            ]
        for role, target in targets.items():
            udp = "udp rcvbuf=4m sndbuf=4m" if is_udp(role) else "backlog=4096"
            tls = " ssl" if self.certificate else ""
            lines += [
                f"server {{ listen {listen[role]}{tls} reuseport {udp};",
                f"proxy_pass {target}; }}",
            ]
        lines += ["}", ""]
        return "\n".join(lines)

    @contextmanager
    def relay(self, targets: Mapping[str, str]) -> Iterator[Relaying]:
        listen = _listen(list(targets))
        with tempfile.TemporaryDirectory(prefix="qanat-bench-") as folder:
            file = Path(folder, "nginx.conf")
            file.write_text(self.configuration(targets, listen))
            # Workers of a root's nginx run as another user, who must reach its folder.
            Path(folder).chmod(0o755)
            command = ["nginx", "-p", folder, "-c", str(file), "-e", f"{folder}/error.log"]
            with run([command], listen) as relaying:
                yield relaying


def _nginx_module() -> str | None:
    """The stream module's file, "" where it is built in, None where there is none."""
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    if module.exists():
        return str(module)
    if not shutil.which("nginx"):
        return None
    text = subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=False).stderr
    return "" if "--with-stream " in text or text.rstrip().endswith("--with-stream") else None


@dataclass(frozen=True)
class Haproxy:
    """TCP mode with automatic splicing; it relays no UDP."""

    name: str = "haproxy"
    pipe_size: int | None = None
    """``tune.pipesize``; the kernel's 64 KiB when None."""
    certificate: Certificate | None = None
    """To terminate TLS with."""
    server_name: str | None = None
    """Take only connections whose ClientHello names it, without terminating them."""

    def missing(self) -> str | None:
        if shutil.which("haproxy"):
            return None
        return "haproxy is missing: apt-get install haproxy"

    def version(self) -> str:
        words = _first_line(["haproxy", "-v"]).split()
        return words[2] if len(words) > 2 else "?"

    @staticmethod
    def most_connections() -> int:
        """It wants two descriptors for each and one more for every two (pipes), and refuses to
        start without."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return min(7_000, (hard - 200) * 2 // 5)

    def configuration(self, targets: Mapping[str, str], listen: Mapping[str, str]) -> str:
        lines = [
            "global",
            f"    nbthread {WORKERS}",
            f"    maxconn {self.most_connections()}",
            f"    tune.pipesize {self.pipe_size}" if self.pipe_size else "",
            "defaults",
            "    mode tcp",
            "    option splice-auto",
            "    option dontlognull",
            "    backlog 4096",
            "    timeout connect 5s",
            "    timeout client 10m",
            "    timeout server 10m",
        ]
        tls = f" ssl crt {self.certificate.both}" if self.certificate else ""
        for role, target in targets.items():
            lines += [
                f"listen {role}",
                f"    bind {listen[role]}{tls}",
                *self._inspection(),
                f"    server target {target}",
            ]
        return "\n".join([*lines, ""])

    def _inspection(self) -> list[str]:
        if self.server_name is None:
            return []
        return [
            "    tcp-request inspect-delay 5s",
            "    tcp-request content accept if { req.ssl_sni -i " + self.server_name + " }",
            "    tcp-request content reject",
        ]

    @contextmanager
    def relay(self, targets: Mapping[str, str]) -> Iterator[Relaying]:
        if any(is_udp(role) for role in targets):
            raise BenchmarkError("relays no UDP")
        listen = _listen(list(targets))
        with tempfile.TemporaryDirectory(prefix="qanat-bench-") as folder:
            file = Path(folder, "haproxy.cfg")
            file.write_text(self.configuration(targets, listen))
            with run([["haproxy", "-db", "-f", str(file)]], listen) as relaying:
                yield relaying


@dataclass(frozen=True)
class Socat:
    """One process for each port, and one more for each flow."""

    name: str = "socat"

    def missing(self) -> str | None:
        return None if shutil.which("socat") else "socat is missing: apt-get install socat"

    def version(self) -> str:
        result = subprocess.run(["socat", "-V"], capture_output=True, text=True, check=False)
        for line in result.stdout.splitlines():
            if line.startswith("socat version"):
                return line.split()[2]
        return "?"

    @contextmanager
    def relay(self, targets: Mapping[str, str]) -> Iterator[Relaying]:
        listen = _listen(list(targets))
        commands = []
        for role, target in targets.items():
            host, _, port = listen[role].rpartition(":")
            local = f"{port},bind={host},reuseaddr,fork"
            pair = (
                [f"UDP-LISTEN:{local},rcvbuf=4194304", f"UDP:{target}"]
                if is_udp(role)
                else [f"TCP-LISTEN:{local},nodelay,backlog=4096", f"TCP:{target},nodelay"]
            )
            # -t: how long the other direction may go on after a half-close.
            commands.append(["socat", "-b", "65536", "-t", "30", *pair])
        with run(commands, listen) as relaying:
            yield relaying


@dataclass(frozen=True)
class Qanat:
    python: str = sys.executable
    """The interpreter whose qanat is measured; its engine must be a release build."""
    arguments: tuple[str, ...] = ()
    name: str = "qanat"
    certificate: Certificate | None = None
    """To terminate TLS with."""
    network: Mapping[str, bool | int] = field(default_factory=dict)
    """More keys of every endpoint's ``network``."""
    transports: Mapping[str, str] = field(default_factory=dict)
    """``listen_transport`` and ``remote_transport`` of every endpoint."""
    routed: str | None = None
    """Look for this name in every ClientHello, and go on to the same target."""
    hook: str | None = None
    """Who decides about every connection."""

    def missing(self) -> str | None:
        script = "import json, qanat._engine as e; print(json.dumps(json.loads(e.build_info())))"
        result = subprocess.run(
            [self.python, "-c", script], capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            reason = (result.stderr.strip().splitlines() or ["?"])[-1]
            return f"{self.python} has no qanat with an engine ({reason}): pip install ."
        profile = json.loads(result.stdout).get("profile")
        if profile != "release":
            return (
                f"the engine of {self.python} is a {profile} build, which says nothing about "
                "speed: install a release build (pip install .) and name its python with --python"
            )
        return None

    def version(self) -> str:
        script = "import qanat._engine as e; print(e.build_info())"
        result = subprocess.run(
            [self.python, "-c", script], capture_output=True, text=True, check=False
        )
        built = json.loads(result.stdout)
        return f"{built.get('version', '?')} ({built.get('profile', '?')})"

    def command(self, file: Path) -> list[str]:
        arguments = ["--config", str(file), "--log-level", "warn", *self.arguments]
        return [self.python, "-m", "qanat", "relay", *arguments]

    @contextmanager
    def relay(self, targets: Mapping[str, str]) -> Iterator[Relaying]:
        listen = _listen(list(targets))
        endpoints = [
            {"listen": listen[role], "remote": target, **self._keys(role, target)}
            for role, target in targets.items()
        ]
        with self._running(endpoints, listen) as relaying:
            yield relaying

    def _keys(self, role: str, target: str) -> dict[str, object]:
        keys: dict[str, object] = {
            "network": {"use_udp": is_udp(role), "no_tcp": is_udp(role), **self.network}
        }
        if self.certificate:
            files = f"cert={self.certificate.chain};key={self.certificate.key}"
            keys["listen_transport"] = f"tls;{files}"
        keys |= self.transports
        if self.routed:
            keys["route"] = [{"sni": self.routed, "remote": target}]
        if self.hook:
            keys["hook"] = self.hook
        return keys

    @contextmanager
    def relay_many(self, count: int) -> Iterator[Relaying]:
        """So many endpoints, TCP and UDP each, on an address that nobody else uses. They are bound
        in order, so that the last one answers last."""
        endpoints = [
            {
                "listen": f"127.0.0.9:{20_000 + number}",
                "remote": "127.0.0.1:9",
                "network": {"use_udp": True},
            }
            for number in range(count)
        ]
        last = str(endpoints[-1]["listen"])
        with self._running(endpoints, {"tcp": last, "udp": last}) as relaying:
            yield relaying

    @contextmanager
    def relay_checked(self, count: int, port: int, interval: float) -> Iterator[Relaying]:
        """So many endpoints that check a remote each, no two of them the same."""
        remotes = (f"127.1.{number // 250}.{number % 250 + 1}:{port}" for number in range(count))
        endpoints = [
            {
                "listen": f"127.0.0.9:{20_000 + number}",
                "remote": remote,
                "network": {"check": {"interval": interval}},
            }
            for number, remote in enumerate(remotes)
        ]
        with self._running(endpoints, {"tcp": str(endpoints[-1]["listen"])}) as relaying:
            yield relaying

    @contextmanager
    def _running(
        self, endpoints: Sequence[Mapping[str, object]], listen: Mapping[str, str]
    ) -> Iterator[Relaying]:
        with tempfile.TemporaryDirectory(prefix="qanat-bench-") as folder:
            file = Path(folder, "qanat.json")
            top = {"workers": WORKERS, "control": False, "endpoints": list(endpoints)}
            file.write_text(json.dumps(top, indent=1))
            with run([self.command(file)], listen) as relaying:
                yield relaying


PEERS: tuple[str, ...] = ("qanat", "nginx", "haproxy", "socat", "direct")
