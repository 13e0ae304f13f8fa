"""The connector at the bottom of most stacks: TCP to addresses that are known by now.

Names are never looked up here, so nothing here can block. Several candidates are tried one after
the other; ``HappyEyeballs`` above races them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final

from qanat.stack.address import Address
from qanat.stack.connect.attempts import none_reached, unresolved
from qanat.stack.connect.target import ConnectTo
from qanat.stack.errors import ConnectError, kind_of_os_error
from qanat.stack.facts import Peer
from qanat.stack.stream.sockets import TcpStream

__all__ = ["TcpConnector"]

_UNDER_WAY: Final = frozenset({errno.EINPROGRESS, errno.EALREADY})
_OURSELVES_FROM: Final = 1024
"""Ports below are not chosen for outgoing connections, so none of them can meet itself."""


@dataclass(frozen=True, slots=True)
class TcpConnector:
    """A service from a target to a stream. The stream is the caller's to close.

    Raises ConnectError alone. Cancelled, it leaves nothing behind.
    """

    through: tuple[str, ...] = ()
    """Our own addresses to connect from: one for each family that has one."""
    interface: str | None = None
    """The device to leave by (SO_BINDTODEVICE)."""
    mark: int | None = None
    """The mark of packets, for policy routing (SO_MARK)."""
    keepalive: float | None = None
    """Seconds without a byte before the kernel asks whether the target is still there."""

    def __call__(self, asked: ConnectTo, /) -> Awaitable[TcpStream]:
        candidates = asked.candidates
        if candidates is not None and len(candidates) != 1:
            return self._in_turn(asked.target, candidates)
        return self._dial(asked.target if candidates is None else candidates[0], asked.target)

    async def _in_turn(self, target: Address, candidates: tuple[Address, ...]) -> TcpStream:
        errors = []
        for candidate in candidates:
            try:
                return await self._dial(candidate, target)
            except ConnectError as error:
                errors.append(error)
        raise none_reached(target, errors)

    async def _dial(self, to: Address, target: Address) -> TcpStream:
        # A name would make the C library look it up, and block the loop.
        host, _, zone = to.host.partition("%")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            raise unresolved(to) from None
        try:
            name = (host, to.port, 0, _scope(zone)) if zone else (host, to.port)
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise _failed(to, target, error) from error
        try:
            sock.setblocking(False)
            self._prepare(sock, family)
            number = sock.connect_ex(name)
            if number in _UNDER_WAY:
                # To an address of this machine the connection is there by now, and a second call
                # says so: that is cheaper than a round of the loop.
                number = sock.connect_ex(name)
                if number in _UNDER_WAY:
                    number = await _connected(sock)
            if number and number != errno.EISCONN:
                raise OSError(number, os.strerror(number))
            if to.port >= _OURSELVES_FROM and sock.getsockname()[:2] == name[:2]:
                # Linux lets a socket meet itself when its own port is the one it connects to.
                raise OSError(errno.ECONNREFUSED, "the connection met itself")
            stream = TcpStream(sock)
        except OSError as error:
            sock.close()
            raise _failed(to, target, error) from error
        except BaseException:
            sock.close()
            raise
        stream.ext.insert(Peer(to))
        return stream

    def _prepare(self, sock: socket.socket, family: int) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.keepalive is not None:
            seconds = max(1, round(self.keepalive))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 3))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        if self.mark is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self.mark)
        if self.interface is not None:
            device = self.interface.encode()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        for ours in self.through:
            if (":" in ours) == (family == socket.AF_INET6):
                # The port is chosen when the target is known, so that more connections than there
                # are ports can leave.
                sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
                sock.bind((ours, 0))
                return
        if self.through:
            raise OSError(errno.EADDRNOTAVAIL, "no address of this family to connect from")


_BIND_ADDRESS_NO_PORT: Final = 24
"""IP_BIND_ADDRESS_NO_PORT of Linux, which Python 3.11 does not name."""


def _scope(zone: str) -> int:
    return int(zone) if zone.isdigit() else socket.if_nametoindex(zone)


async def _connected(sock: socket.socket) -> int:
    """The error number, 0 for none."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    fd = sock.fileno()
    loop.add_writer(fd, _ready, waiter)
    try:
        await waiter
    finally:
        loop.remove_writer(fd)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _ready(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _failed(to: Address, target: Address, error: OSError) -> ConnectError:
    kind, domain = kind_of_os_error(error)
    text = (error.strerror or str(error)).lower()
    line = f"{to}: {text}"
    return ConnectError(line, kind=kind, domain=domain, target=str(target), attempts=(line,))
