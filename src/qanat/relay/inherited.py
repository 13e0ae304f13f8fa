"""Listening sockets that this process was given when it was started, and whose they are.

Looks at the sockets it is given and does nothing to them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from qanat.config.address import AddressError, join, parse_listen
from qanat.errors import ConfigError, Problem
from qanat.plan import EndpointPlan

__all__ = ["Inherited"]

_PROTOCOLS = {socket.SOCK_STREAM: "tcp", socket.SOCK_DGRAM: "udp"}


class Inherited:
    """File descriptors by the endpoint that they are for.

    A key is the endpoint's id or its listening address; ``tcp://`` or ``udp://`` before it says
    which of the two sockets it is, where the socket itself does not need to be asked.
    """

    def __init__(self, descriptors: Mapping[str, int]) -> None:
        """Raises ConfigError if something is no socket to listen on, or two are for the same."""
        self._sockets: dict[tuple[str, str], int] = {}
        problems = []
        for key, fd in descriptors.items():
            try:
                protocol, name = _whose(key, fd)
            except (OSError, ValueError) as error:
                problems.append(Problem(f"inherited descriptor {fd}: {error}", key=key))
                continue
            if self._sockets.setdefault((protocol, name), fd) != fd:
                problems.append(Problem(f"two inherited {protocol} sockets", key=key))
        if problems:
            raise ConfigError(problems)

    def take(self, plan: EndpointPlan) -> tuple[int, int]:
        """The TCP and the UDP descriptor for this plan, -1 where there is none."""
        tcp = -1 if plan.tcp is None else self._take("tcp", plan)
        udp = -1 if plan.udp is None else self._take("udp", plan)
        return tcp, udp

    @property
    def left(self) -> list[int]:
        """Descriptors that nothing took."""
        return list(self._sockets.values())

    def _take(self, protocol: str, plan: EndpointPlan) -> int:
        for name in (plan.id, plan.listen):
            fd = self._sockets.pop((protocol, name), None)
            if fd is not None:
                return fd
        return -1


def _whose(key: str, fd: int) -> tuple[str, str]:
    protocol, separator, name = key.rpartition("://")
    # On a copy, as the object closes what it was given.
    with socket.socket(fileno=os.dup(fd)) as copy:
        kind = _PROTOCOLS.get(copy.type)
    if kind is None:
        raise ValueError("neither a TCP nor a UDP socket")
    if separator and protocol != kind:
        raise ValueError(f"a {kind.upper()} socket, not {protocol}")
    return kind, _canonical(name)


def _canonical(name: str) -> str:
    """Addresses in the form that plans have; ids as they are."""
    try:
        address = parse_listen(name)
    except AddressError:
        return name
    return join(address.host, address.ports)
