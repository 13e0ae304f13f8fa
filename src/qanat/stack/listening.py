"""Where connections come from: sockets that Python accepts from, and those from which the engine
does.

A listener makes streams with what is known of them, and leaves to its server whether they are let
in and what becomes of them.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import stat
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qanat.plan import DeskListenPlan, TlsAcceptPlan, to_json
from qanat.stack.address import Address
from qanat.stack.courier import Courier
from qanat.stack.extensions import Extensions
from qanat.stack.facts import Accepted, Listener, Peer
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream
from qanat.stack.stream.engine import EngineStream, note_handshake
from qanat.stack.stream.sockets import SocketStream, TcpStream, UnixStream

if TYPE_CHECKING:
    from qanat.stack.server import Server

__all__ = [
    "Connection",
    "EngineListening",
    "Listening",
    "SocketListening",
    "bound",
    "clear",
]

_logger = logging.getLogger("qanat.server")

_BATCH: Final = 64
"""Connections that are accepted before others get their turn."""
_NO_RESOURCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE: Final = 0.5
"""Seconds without accepting when there is no descriptor left."""


@dataclass(slots=True, eq=False)
class Connection:
    """One that is being served."""

    stream: Stream
    listener: Listening
    client: Address | None
    since: float
    """By the clock of the loop."""
    task: asyncio.Task[None] | None = None
    begun: bool = False
    """A task that is cancelled before its first step never takes it."""


class Listening(ABC):
    """A listener of a server."""

    def __init__(
        self,
        server: Server,
        service: Service[Any, object],
        name: str,
        address: Address | None,
    ) -> None:
        self.name = name
        self.service = service
        self.address = address
        """With the port that the kernel chose; None for a Unix socket."""
        self.accepted: int = 0
        self.refused: int = 0
        """Over a limit, before any work was done."""
        self.denied: int = 0
        """Who may not have what they asked for, or are not whom they said to be."""
        self.open: int = 0
        self._server = server
        self._loop = asyncio.get_running_loop()
        # One address for all connections, unless the listener takes them at any of ours.
        ip = None if address is None else address.ip
        self._fact = (
            Listener(address, name)
            if address is not None and ip is not None and not ip.is_unspecified
            else None
        )

    def __repr__(self) -> str:
        return f"<Listening {self}>"

    def __str__(self) -> str:
        return self.name or str(self.address or "a Unix socket")

    @abstractmethod
    def close(self) -> None:
        """Accept no more; what was accepted goes on. Idempotent."""

    def _arrived(self, stream: Stream, client: Address | None, listener: Listener | None) -> None:
        """A connection of this client, to this address of ours."""
        self.accepted += 1
        if not self._server.admits(client):
            self.refused += 1
            _logger.debug("%s at %s: over a limit", client or "a client", self)
            stream.abort()
            return
        ext = stream.ext
        if client is not None:
            ext.insert(Peer(client))
        if listener is not None:
            ext.insert(listener)
        since = self._loop.time()
        ext.insert(Accepted(since))
        self.open += 1
        self._server.begin(Connection(stream, self, client, since))


class SocketListening(Listening):
    """Accepts in Python."""

    def __init__(
        self,
        server: Server,
        sock: socket.socket,
        service: Service[Any, object],
        name: str,
        path: Path | None = None,
    ) -> None:
        self._unix = sock.family == socket.AF_UNIX
        address = None if self._unix else Address.of_socket(sock.getsockname())
        super().__init__(server, service, name, address)
        self._sock: socket.socket | None = sock
        self._path = path
        self._resume: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        if not self._unix:
            # What is accepted inherits it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(sock.fileno(), self._accept)

    def __str__(self) -> str:
        return self.name or str(self.address or self._path)

    def close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(sock.fileno())
        sock.close()
        if self._path is not None:
            with suppress(FileNotFoundError):
                self._path.unlink()

    def _accept(self) -> None:
        listener = self._sock
        if listener is None:
            return
        loop = self._loop
        for _ in range(_BATCH):
            try:
                sock, name = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _NO_RESOURCE:
                    self._rest(error)
                    return
                # That connection is gone already: its peer's mistake, or its change of mind.
                continue
            sock.setblocking(False)
            stream: SocketStream
            if self._unix:
                self._arrived(UnixStream(sock, Extensions(), loop), None, None)
                continue
            client = Address(name[0], name[1]) if len(name) == 2 else Address.of_socket(name)
            stream = TcpStream(sock, Extensions(), loop)
            fact = self._fact or Listener(Address.of_socket(sock.getsockname()), self.name)
            self._arrived(stream, client, fact)

    def _rest(self, error: OSError) -> None:
        """Without descriptors every call fails at once: look again a little later."""
        _logger.warning(
            "can't accept on %s: %s; trying again in %g s",
            self.name or self.address or self._path,
            error.strerror,
            _PAUSE,
        )
        assert self._sock is not None  # noqa: S101 - it was used just now
        self._loop.remove_reader(self._sock.fileno())
        self._resume = self._loop.call_later(_PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        if self._sock is not None:
            self._loop.add_reader(self._sock.fileno(), self._accept)
            self._accept()


class EngineListening(Listening):
    """Has the engine accept, and shake hands where there is TLS: what comes here is whole."""

    def __init__(
        self,
        server: Server,
        carrier: Courier,
        sock: socket.socket,
        service: Service[Any, object],
        name: str,
        tls: TlsAcceptPlan | None,
    ) -> None:
        """:raises EngineRefused: the socket is still the caller's."""
        super().__init__(server, service, name, Address.of_socket(sock.getsockname()))
        self._carrier = carrier
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plan = DeskListenPlan(listen=str(self.address), tls=tls)
        with carrier.translated():
            handle, _ = carrier.desk.listen(to_json(plan), sock.fileno())
        sock.detach()
        self._handle: int | None = handle
        carrier.watch(handle, self._reported)

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None and not self._carrier.closed:
            self._carrier.forget(handle)
            self._carrier.desk.close_listener(handle)

    def _reported(self, kind: str, text: str) -> None:
        if kind != "accepted":
            return
        told = json.loads(text)
        stream = EngineStream(self._carrier, told["leg"], Extensions())
        if told["tls"] is not None:
            note_handshake(stream.ext, told["tls"])
        local = self._fact or Listener(Address.parse(told["local"]), self.name)
        self._arrived(stream, Address.parse(told["peer"]), local)


def bound(address: Address, backlog: int, reuse_port: bool) -> socket.socket:
    """A socket that listens. :raises OSError: the address can't be used."""
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, place = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # [::] is every address, as its readers expect.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(place)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise type(error)(error.errno, f"can't listen on {address}: {error.strerror}") from error
    except BaseException:
        sock.close()
        raise
    return sock


def clear(path: Path) -> None:
    """Take away a socket on which nobody listens."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            return
