"""Small networks of network namespaces and veth pairs, gone when they are left. Needs root.

A socket belongs to the namespace it was made in, wherever it is used later: the test makes its
sockets inside of ``with namespace.entered()`` and goes on outside.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Namespace", "Network", "Wire", "network", "wire"]

_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    def __init__(self, name: str) -> None:
        self.name = name
        self.devices = 0
        self.before = ("ip", "netns", "exec", name)
        """What stands before a command that is to run here."""

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in the namespace."""
        with (
            open("/proc/thread-self/ns/net", "rb") as outside,
            open(f"/run/netns/{self.name}", "rb") as inside,
        ):
            _enter(inside.fileno())
            try:
                yield
            finally:
                _enter(outside.fileno())

    def ip(self, *commands: str) -> None:
        """Commands of ip(8), as in its batch files."""
        _ip(commands, "-n", self.name)

    def run(self, *words: str) -> str:
        """What a command says that runs here."""
        done = subprocess.run(
            [*self.before, *words], check=True, capture_output=True, text=True, timeout=20
        )
        return done.stdout

    def set(self, key: str, value: object) -> None:
        """Set a value of sysctl(8), as ``net/ipv4/ip_forward``."""
        self.run("sh", "-c", f"echo {value} > /proc/sys/{key}")


class Network:
    """Namespaces, and links between them whose ends are eth0, eth1, ... in each."""

    def __init__(self) -> None:
        self._all: list[Namespace] = []

    def namespace(self) -> Namespace:
        made = Namespace(f"qanat-{os.getpid()}-{len(self._all)}")
        _ip([f"netns add {made.name}"])
        self._all.append(made)
        made.ip("link set lo up")
        return made

    def link(
        self, one: Namespace, other: Namespace, addresses: list[tuple[str, str]], *, mtu: int = 1500
    ) -> None:
        """Connect two, each with its half of the address pairs (``address/bits``)."""
        ends = [(end, f"eth{end.devices}") for end in (one, other)]
        first, second = (f"name {device} netns {end.name}" for end, device in ends)
        _ip([f"link add {first} mtu {mtu} type veth peer {second} mtu {mtu}"])
        for side, (end, device) in enumerate(ends):
            end.devices += 1
            given = [
                f"address add {pair[side]} dev {device}{' nodad' if ':' in pair[side] else ''}"
                for pair in addresses
            ]
            end.ip(*given, f"link set {device} up")

    def remove(self) -> None:
        for made in self._all:
            _ip([f"netns delete {made.name}"])


@contextmanager
def network() -> Iterator[Network]:
    made = Network()
    try:
        yield made
    finally:
        made.remove()


class Wire:
    """A client, a relay and a target, each a machine of its own in the middle of nothing else."""

    def __init__(self, net: Network) -> None:
        self.client = net.namespace()
        self.relay = net.namespace()
        self.target = net.namespace()
        net.link(
            self.client,
            self.relay,
            [("10.71.0.1/24", "10.71.0.2/24"), ("fd71::1/64", "fd71::2/64")],
        )
        net.link(
            self.relay,
            self.target,
            [("10.72.0.1/24", "10.72.0.2/24"), ("fd72::1/64", "fd72::2/64")],
        )

    CLIENT = "10.71.0.1"
    """The client; on eth0."""
    NEAR = "10.71.0.2"
    """The relay towards the client; on eth0."""
    FAR = "10.72.0.1"
    """The relay towards the target; on eth1."""
    TARGET = "10.72.0.2"
    """The target; on eth0."""

    def swallow(self, address: str) -> None:
        """Let the relay send to this address, and nobody hear it."""
        self.relay.ip(f"neigh replace {address} lladdr 02:00:00:00:00:99 dev eth1")


@contextmanager
def wire() -> Iterator[Wire]:
    with network() as net:
        yield Wire(net)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _ip(commands: list[str] | tuple[str, ...], *options: str) -> None:
    done = subprocess.run(
        ["ip", *options, "-batch", "-"],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 0, f"{commands}: {done.stderr}"
