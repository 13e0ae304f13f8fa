"""Accepting connections and owning what becomes of them.

::

    async with open_server(drain=30) as server:
        server.tcp("127.0.0.1:7000", stack(LimitConns(1000), Timeout(60), echo))
        await server.run()

Each connection has one task, held here from accept to end. A service that fails ends its own
connection and nothing else. On the way out nothing is left: listeners are closed first, connections
get the drain time, what is still there is cut.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from qanat.errors import QanatError
from qanat.stack.address import Address
from qanat.stack.errors import answer_to
from qanat.stack.extensions import Extensions
from qanat.stack.facts import Accepted, Listener, Peer
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream
from qanat.stack.stream.sockets import SocketStream, TcpStream, UnixStream

__all__ = ["Connection", "Listening", "Server", "ServerReport", "open_server"]

_logger = logging.getLogger("qanat.server")

_BATCH: Final = 64
"""Connections that are accepted before others get their turn."""
_NO_RESOURCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE: Final = 0.5
"""Seconds without accepting when there is no descriptor left."""
_LAST: Final = 5.0
"""Seconds that connections have to end after they were cut."""


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


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What a server did until its end."""

    accepted: int
    refused: int
    """Over a limit, before any work was done."""
    failed: int
    """Services that failed by a mistake of ours."""
    cut: int
    """Connections that had not ended within the drain time."""
    forced: bool
    """Whether a second signal ended it at once."""


class Listening:
    """A listener of a server."""

    def __init__(
        self,
        server: Server,
        sock: socket.socket,
        service: Service[Any, object],
        name: str,
        path: Path | None = None,
    ) -> None:
        self.name = name
        self.service = service
        self.accepted: int = 0
        self.refused: int = 0
        self.open: int = 0
        self._server = server
        self._sock: socket.socket | None = sock
        self._path = path
        self._resume: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._unix = sock.family == socket.AF_UNIX
        self.address: Address | None = None if self._unix else Address.of_socket(sock.getsockname())
        """With the port that the kernel chose; None for a Unix socket."""
        # One address for all connections, unless the listener takes them at any of ours.
        ip = None if self.address is None else self.address.ip
        self._fact = (
            Listener(self.address, name)
            if self.address is not None and ip is not None and not ip.is_unspecified
            else None
        )
        if not self._unix:
            # What is accepted inherits it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(sock.fileno(), self._accept)

    def __repr__(self) -> str:
        return f"<Listening {self.name or self.address or self._path}>"

    def close(self) -> None:
        """Accept no more; what was accepted goes on. Idempotent."""
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
        server, loop = self._server, self._loop
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
            self.accepted += 1
            sock.setblocking(False)
            stream: SocketStream
            client: Address | None = None
            ext = Extensions()
            if self._unix:
                stream = UnixStream(sock, ext, loop)
            else:
                client = Address(name[0], name[1]) if len(name) == 2 else Address.of_socket(name)
                stream = TcpStream(sock, ext, loop)
            if not server._admits(client):
                self.refused += 1
                stream.abort()
                continue
            if client is not None:
                ext.insert(Peer(client))
                ext.insert(self._fact or Listener(Address.of_socket(sock.getsockname()), self.name))
            since = loop.time()
            ext.insert(Accepted(since))
            connection = Connection(stream, self, client, since)
            self.open += 1
            server._begin(connection)

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


class Server:
    """Made by :func:`open_server`, which is its documentation."""

    def __init__(
        self, *, drain: float, max_conns: int | None, max_conns_per_client: int | None
    ) -> None:
        self.drain = drain
        self.max_conns = max_conns
        self.max_conns_per_client = max_conns_per_client
        self.listeners: list[Listening] = []
        self.connections: set[Connection] = set()
        self.failed: int = 0
        self.forced: bool = False
        self._clients: dict[object, int] = {}
        self._cut = 0
        self._stop = asyncio.Event()
        self._now = asyncio.Event()
        self._ended = False
        self._empty: asyncio.Future[None] | None = None

    def tcp(
        self,
        listen: str | Address | socket.socket,
        service: Service[Any, object],
        *,
        name: str = "",
        backlog: int = 1024,
        reuse_port: bool = False,
    ) -> Listening:
        """Serve TCP connections at an address (port 0: the kernel chooses), or by a socket that is
        bound already and ours from here on. :raises OSError: the address can't be used."""
        if isinstance(listen, socket.socket):
            listen.listen(backlog)
            return self._serving(Listening(self, listen, service, name))
        if isinstance(listen, str):
            host, _, port = listen.rpartition(":")
            address = Address(host.strip("[]"), int(port)) if port == "0" else Address.parse(listen)
        else:
            address = listen
        return self._serving(Listening(self, _bound(address, backlog, reuse_port), service, name))

    def unix(
        self,
        path: str | Path,
        service: Service[Any, object],
        *,
        name: str = "",
        backlog: int = 1024,
        mode: int = 0o600,
    ) -> Listening:
        """Serve connections to a Unix socket. One that a dead server left behind is replaced.
        :raises OSError: somebody listens there, or it can't be made."""
        place = Path(path)
        _clear(place)
        sock = socket.socket(socket.AF_UNIX)
        try:
            os.fchmod(sock.fileno(), mode)
            sock.bind(str(place))
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
        return self._serving(Listening(self, sock, service, name, place))

    def _serving(self, listener: Listening) -> Listening:
        self.listeners.append(listener)
        return listener

    async def run(self, *, signals: bool = True) -> ServerReport:
        """Serve until SIGTERM, SIGINT or :meth:`shutdown`; a second signal cuts what still runs."""
        loop = asyncio.get_running_loop()
        taken = []
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                # Only the main thread may; in others the server is ended by shutdown().
                with suppress(ValueError, RuntimeError, NotImplementedError):
                    loop.add_signal_handler(number, self._asked_to_stop)
                    taken.append(number)
        try:
            await self._stop.wait()
            return await self.end()
        finally:
            for number in taken:
                loop.remove_signal_handler(number)

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def shutdown(self, *, now: bool = False) -> None:
        """Begin to end; with ``now`` without the drain time."""
        self._stop.set()
        if now:
            self._now.set()

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():
            self.forced = True
            self._now.set()
        self._stop.set()

    async def end(self) -> ServerReport:
        """Close the listeners, wait for the connections, cut what is left. Idempotent."""
        for listener in self.listeners:
            listener.close()
        if self.connections and not self._now.is_set() and self.drain > 0:
            hurry = asyncio.ensure_future(self._now.wait())
            try:
                either: set[asyncio.Future[Any]] = {hurry, self._emptied()}
                await asyncio.wait(either, timeout=self.drain, return_when=asyncio.FIRST_COMPLETED)
            finally:
                hurry.cancel()
        if not self._ended:
            self._ended = True
            self._cut = len(self.connections)
        for connection in list(self.connections):
            if connection.task is not None:
                connection.task.cancel()
            if not connection.begun:
                connection.stream.abort()
                self._over(connection)
        if self.connections:
            await asyncio.wait({self._emptied()}, timeout=_LAST)
        for connection in self.connections:
            _logger.error("a connection of %s did not end when cut", connection.listener)
        return self.report()

    def report(self) -> ServerReport:
        return ServerReport(
            accepted=sum(listener.accepted for listener in self.listeners),
            refused=sum(listener.refused for listener in self.listeners),
            failed=self.failed,
            cut=self._cut,
            forced=self.forced,
        )

    def _emptied(self) -> asyncio.Future[None]:
        if self._empty is None or self._empty.done():
            self._empty = asyncio.get_running_loop().create_future()
            if not self.connections:
                self._empty.set_result(None)
        return self._empty

    def _admits(self, client: Address | None) -> bool:
        if self.max_conns is not None and len(self.connections) >= self.max_conns:
            return False
        if self.max_conns_per_client is not None and client is not None:
            key = _client_key(client)
            count = self._clients.get(key, 0)
            if count >= self.max_conns_per_client:
                return False
            self._clients[key] = count + 1
        return True

    def _begin(self, connection: Connection) -> None:
        self.connections.add(connection)
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        connection.task = task

    async def _serve(self, connection: Connection) -> None:
        connection.begun = True
        stream = connection.stream
        try:
            await connection.listener.service(stream)
            await stream.aclose()
        except QanatError as error:
            self._tell(error, connection)
            # In order, for what the service may have said about it is still on its way.
            await stream.aclose()
        except Exception as error:
            self._tell(error, connection)
        finally:
            stream.abort()
            self._over(connection)

    def _over(self, connection: Connection) -> None:
        self.connections.discard(connection)
        connection.listener.open -= 1
        if self.max_conns_per_client is not None and connection.client is not None:
            key = _client_key(connection.client)
            left = self._clients.get(key, 1) - 1
            if left > 0:
                self._clients[key] = left
            else:
                self._clients.pop(key, None)
        if not self.connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def _tell(self, error: Exception, connection: Connection) -> None:
        answer = answer_to(error)
        if answer.traceback:
            self.failed += 1
        _logger.log(
            answer.level,
            "%s at %s: %s",
            connection.client or "a client",
            connection.listener.name or connection.listener.address or "a Unix socket",
            error or type(error).__name__,
            exc_info=error if answer.traceback else None,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._now.set()
        await self.end()


def open_server(
    *,
    drain: float = 30.0,
    max_conns: int | None = None,
    max_conns_per_client: int | None = None,
) -> Server:
    """A server, to be used as an asynchronous context manager.

    ``drain`` is how many seconds connections may go on when it ends. Over ``max_conns`` open
    connections, or ``max_conns_per_client`` of one address (IPv6: one /64), new ones are reset
    before any work is done for them.
    """
    return Server(drain=drain, max_conns=max_conns, max_conns_per_client=max_conns_per_client)


def _client_key(client: Address) -> object:
    ip: IPv4Address | IPv6Address | None = client.ip
    if isinstance(ip, IPv6Address):
        return ip.ipv4_mapped or int(ip) >> 64
    return ip


def _bound(address: Address, backlog: int, reuse_port: bool) -> socket.socket:
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
    except BaseException:
        sock.close()
        raise
    return sock


def _clear(path: Path) -> None:
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
