"""Sockets of the program's own, by which it is looked at: control, metrics, the quick start's page.

Bound before anything is served, and long before the event loop that serves them is imported.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from qanat.config.address import AddressError, parse_listen

__all__ = ["Listeners", "listen_on"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """What is bound; None is not wanted."""

    control: socket.socket | None = None
    metrics: socket.socket | None = None
    status_page: socket.socket | None = None


def listen_on(address: str) -> socket.socket:
    """A listening TCP socket. :raises OSError: the address can't be used."""
    try:
        wanted = parse_listen(address)
    except AddressError as error:
        raise OSError(str(error)) from error
    found = socket.getaddrinfo(
        str(wanted.host), wanted.ports.first, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, place = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    return listener
