"""What a hook is asked and what it can answer. Plain values; does no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

__all__ = ["Arrival", "Decision", "Refuse"]

_REFUSED: Final = "refused by the hook"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A client that has connected, before anything is done about it.

    Addresses are ``ip:port`` with IPv6 in brackets.
    """

    flow: int
    """Id of the flow, as in ``Flow.id`` and logs."""
    endpoint: str
    """Id of the endpoint by which it came in."""
    client: str
    """The client: who a PROXY header announced, or the other end of the socket."""
    via: str | None
    """The other end of the socket, when a PROXY header named another client."""
    listener: str | None
    """The address on which the endpoint listens."""
    first_bytes: bytes
    """What the client said first, up to ``hook_first_bytes``; empty if the hook asks for none.

    Shorter if the client said less in half of ``hook_timeout``, or has ended its side.
    """
    remotes: tuple[str, ...]
    """The endpoint's remotes as configured, among which an index chooses."""

    @property
    def client_ip(self) -> IPv4Address | IPv6Address:
        return ip_address(self.client.rpartition(":")[0].strip("[]"))

    @property
    def client_port(self) -> int:
        return int(self.client.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class Refuse:
    """The flow is not wanted, for a reason that the log and the flow's record give."""

    reason: str = _REFUSED


Decision: TypeAlias = bool | int | Refuse | None
"""None or True: the flow may come in. False or Refuse: it may not. An integer: it goes to the
remote of that index, if the endpoint does not balance."""
