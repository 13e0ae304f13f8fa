"""A connector at the bottom of a stack, whose connections the engine makes and holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final

from qanat.plan import DialPlan, to_json
from qanat.stack.address import Address
from qanat.stack.connect.attempts import none_reached, unresolved
from qanat.stack.connect.target import ConnectTo
from qanat.stack.courier import EngineRefused, courier
from qanat.stack.errors import ConnectError, Domain, Kind, kind_of_errno
from qanat.stack.facts import Peer
from qanat.stack.stream.engine import EngineStream, beginning

__all__ = ["EngineConnector"]

_KINDS: Final[dict[str, tuple[Kind, Domain]]] = {
    "connect_timeout": ("timeout", "transport"),
    "resolve_failed": ("dns", "transport"),
    "closed": ("local", "local"),
}


@dataclass(frozen=True, slots=True)
class EngineConnector:
    """A service from a target to a stream of the engine, which races all candidates.

    TLS over it (``EngineTlsConnect``) and relaying stay in the engine. Raises ConnectError alone.
    """

    timeout: float = 10.0
    through: str | None = None
    """Our own address to connect from."""
    interface: str | None = None
    """The device to leave by."""

    async def __call__(self, asked: ConnectTo, /) -> EngineStream:
        target = asked.target
        candidates = (target,) if asked.candidates is None else asked.candidates
        if not candidates:
            raise none_reached(target, [])
        if any(one.ip is None for one in candidates):
            raise unresolved(target)
        carrier = await courier()
        plan = DialPlan(
            addresses=tuple(str(one) for one in candidates),
            timeout=self.timeout,
            through=None if self.through is None else str(Address(self.through, 0)),
            interface=self.interface,
        )
        try:
            with carrier.translated():
                leg = carrier.desk.dial(to_json(plan))
        except EngineRefused as error:
            raise ConnectError(
                f"{target}: {error}", kind="local", domain="local", target=str(target)
            ) from error
        kind, told = await beginning(carrier, leg)
        if kind != "connected":
            raise _failed(target, told)
        stream = EngineStream(carrier, leg)
        stream.ext.insert(Peer(Address.parse(told["peer"])))
        return stream


def _failed(target: Address, told: dict[str, Any]) -> ConnectError:
    """What a report says of a leg that did not come to be."""
    code, number = told.get("code", "closed"), told.get("errno")
    kind, domain = _KINDS.get(code) or kind_of_errno(number or 0)
    text = os.strerror(number).lower() if number else told.get("text", "the engine has ended")
    line = f"{target}: {text}"
    return ConnectError(line, kind=kind, domain=domain, target=str(target), attempts=(line,))
