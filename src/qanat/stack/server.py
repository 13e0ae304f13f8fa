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
import logging
import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from qanat.errors import QanatError
from qanat.stack.address import Address
from qanat.stack.courier import EngineRefused, courier
from qanat.stack.errors import (
    AuthRequired,
    ConnectError,
    Denied,
    LimitReached,
    LocalProtocolError,
    answer_to,
)
from qanat.stack.listening import (
    Connection,
    EngineListening,
    Listening,
    SocketListening,
    bound,
    clear,
)
from qanat.stack.service import Service
from qanat.stack.tls import TlsServerConfig

__all__ = ["Server", "ServerReport", "open_server"]

_logger = logging.getLogger("qanat.server")

_LAST: Final = 5.0
"""Seconds that connections have to end after they were cut."""


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
            return self._serving(SocketListening(self, listen, service, name))
        address = _address(listen)
        sock = bound(address, backlog, reuse_port)
        return self._serving(SocketListening(self, sock, service, name))

    async def engine(
        self,
        listen: str | Address | socket.socket,
        service: Service[Any, object],
        *,
        name: str = "",
        backlog: int = 1024,
        reuse_port: bool = False,
        tls: TlsServerConfig | None = None,
        handshake_timeout: float = 10.0,
        hello: bool = False,
    ) -> Listening:
        """As :meth:`tcp`, with connections that the engine accepts: what the service gets is a
        stream of the engine, after the handshake where there is ``tls``, with its facts. ``hello``
        adds the ClientHello and its JA4 to these.

        :raises OSError: the address can't be used.
        :raises LocalProtocolError: the certificate can't.
        """
        if hello and tls is None:
            raise LocalProtocolError("hello=True needs tls: only a TLS handshake has one")
        carrier = await courier()
        plan = None if tls is None else tls.plan(handshake_timeout, hello=hello)
        if isinstance(listen, socket.socket):
            sock = listen
        else:
            sock = bound(_address(listen), backlog, reuse_port)
        try:
            sock.listen(backlog)
            return self._serving(EngineListening(self, carrier, sock, service, name, plan))
        except EngineRefused as error:
            sock.close()
            raise LocalProtocolError(str(error)) from error
        except BaseException:
            sock.close()
            raise

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
        clear(place)
        sock = socket.socket(socket.AF_UNIX)
        try:
            os.fchmod(sock.fileno(), mode)
            sock.bind(str(place))
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
        return self._serving(SocketListening(self, sock, service, name, place))

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

    def admits(self, client: Address | None) -> bool:
        if self.max_conns is not None and len(self.connections) >= self.max_conns:
            return False
        if self.max_conns_per_client is not None and client is not None:
            key = _client_key(client)
            count = self._clients.get(key, 0)
            if count >= self.max_conns_per_client:
                return False
            self._clients[key] = count + 1
        return True

    def begin(self, connection: Connection) -> None:
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
        if isinstance(error, AuthRequired | Denied | LimitReached) or (
            isinstance(error, ConnectError) and error.kind in ("denied", "limit")
        ):
            connection.listener.denied += 1
        _logger.log(
            answer.level,
            "%s at %s: %s",
            connection.client or "a client",
            connection.listener,
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


def _address(listen: str | Address) -> Address:
    if isinstance(listen, Address):
        return listen
    host, _, port = listen.rpartition(":")
    return Address(host.strip("[]"), int(port)) if port == "0" else Address.parse(listen)
