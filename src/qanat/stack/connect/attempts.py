"""What several failed attempts to reach one target amount to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qanat.stack.address import Address
from qanat.stack.errors import ConnectError, Kind

__all__ = ["none_reached", "unresolved"]

_TELLING: Final[tuple[Kind, ...]] = (
    "denied",
    "limit",
    "refused",
    "reset",
    "tls",
    "proxy-auth",
    "proxy-reply",
    "timeout",
    "host-unreachable",
    "net-unreachable",
    "dns",
    "local",
)
"""The kinds by how much they say: an address that refuses is nearer to the target than a missing
route of a family that this machine does not have."""


def none_reached(target: Address, errors: Sequence[ConnectError]) -> ConnectError:
    """One error for all attempts; the only one as it is."""
    if len(errors) == 1:
        return errors[0]
    if not errors:
        return ConnectError(f"{target} has no address", kind="dns", target=str(target))
    telling = min(errors, key=lambda error: _TELLING.index(error.kind))
    attempts = tuple(line for error in errors for line in (error.attempts or (str(error),)))
    return ConnectError(
        f"{target}: none of {len(errors)} addresses was reached; {telling}",
        kind=telling.kind,
        domain=telling.domain,
        target=str(target),
        attempts=attempts,
    )


def unresolved(target: Address) -> ConnectError:
    """For connectors that don't look names up."""
    return ConnectError(
        f"{target}: nobody looked the name up; put Resolve() above the connector",
        kind="dns",
        domain="local",
        target=str(target),
    )
