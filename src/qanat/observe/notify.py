"""The service manager's side: readiness notices out, listening sockets in.

Speaks systemd's two small protocols (a datagram of ``KEY=value`` lines; descriptors from number 3
on) with the standard library alone. Knows nothing of relays.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["FIRST_DESCRIPTOR", "InheritedSocket", "Notifier", "inherited_sockets"]

FIRST_DESCRIPTOR: Final = 3


class Notifier:
    """Tells the service manager how we are. Does nothing when there is none.

    Notices are a courtesy: one that can't be delivered is dropped, never an error.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, *, pid: int | None = None) -> None:
        environ = os.environ if environ is None else environ
        pid = os.getpid() if pid is None else pid
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        if path and path[0] not in "/@":
            self._address = ""
        self._watchdog = _watchdog_interval(environ, pid)

    @property
    def wanted(self) -> bool:
        """Whether anybody listens."""
        return bool(self._address)

    @property
    def watchdog(self) -> float | None:
        """Seconds within which a sign of life is expected, or None."""
        return self._watchdog if self._address else None

    def ready(self, status: str = "", *, main_pid: int | None = None) -> None:
        self._send("READY=1", f"MAINPID={main_pid}" if main_pid else "", _status(status))

    def reloading(self) -> None:
        """To be followed by :meth:`ready` once the reload is over, whatever came of it."""
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={usec}")

    def stopping(self, status: str = "") -> None:
        self._send("STOPPING=1", _status(status))

    def status(self, text: str) -> None:
        self._send(_status(text))

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Ask for so much more time before a start or stop counts as hung."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        text = "\n".join(line for line in lines if line)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), self._address)
        except OSError:
            return


def _status(text: str) -> str:
    return "STATUS=" + text.replace("\n", " ") if text else ""


def _watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    try:
        interval = int(environ.get("WATCHDOG_USEC", "0")) / 1_000_000
        meant = int(environ.get("WATCHDOG_PID", str(pid)))
    except ValueError:
        return None
    return interval if interval > 0 and meant == pid else None


@dataclass(frozen=True, slots=True)
class InheritedSocket:
    """A socket that the service manager opened for us."""

    descriptor: int
    name: str
    """The manager's name of it; ``unknown`` when it gave none."""
    protocol: Literal["tcp", "udp"]
    address: str
    """``ip:port`` or ``[ip6]:port``."""


def inherited_sockets(
    environ: MutableMapping[str, str] | None = None, *, pid: int | None = None
) -> list[InheritedSocket]:
    """The internet sockets handed to this process, and only to this one.

    The variables are removed from ``environ`` so that no child takes them for its own. Descriptors
    are made close-on-exec. What is no TCP or UDP socket is closed: nothing could serve it.
    """
    environ = os.environ if environ is None else environ
    pid = os.getpid() if pid is None else pid
    meant, number = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if not meant.isdigit() or int(meant) != pid or not number.isdigit():
        return []
    found = []
    for index in range(int(number)):
        name = names[index] if index < len(names) and names[index] else "unknown"
        descriptor = FIRST_DESCRIPTOR + index
        try:
            os.set_inheritable(descriptor, False)
            described = _describe(descriptor)
        except OSError:
            continue
        if described is None:
            os.close(descriptor)
            continue
        protocol, address = described
        found.append(InheritedSocket(descriptor, name, protocol, address))
    return found


def _describe(descriptor: int) -> tuple[Literal["tcp", "udp"], str] | None:
    sock = socket.socket(fileno=os.dup(descriptor))
    with sock:
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        host, port = sock.getsockname()[:2]
        address = f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"
        if kind == socket.SOCK_STREAM:
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return None
            return "tcp", address
        return ("udp", address) if kind == socket.SOCK_DGRAM else None
