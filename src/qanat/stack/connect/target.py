"""What a connector is asked for.

A connector is a service from :class:`ConnectTo` to a stream. Layers around one resolve the name,
refuse addresses, race candidates or go through another proxy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from qanat.stack.address import Address
from qanat.stack.extensions import Extensions
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream

__all__ = ["ConnectTo", "Connector"]


@dataclass(frozen=True, slots=True)
class ConnectTo:
    """A target, what is known of who asks (``ext``), and its resolved addresses once they are.

    ``candidates`` holds IP literals in the order they should be tried; None means that nobody has
    resolved the name yet.
    """

    target: Address
    ext: Extensions = field(default_factory=Extensions)
    candidates: tuple[Address, ...] | None = None

    def with_candidates(self, candidates: tuple[Address, ...]) -> ConnectTo:
        return replace(self, candidates=candidates)


Connector = Service[ConnectTo, Stream]
"""A service from what is asked for to a stream. Layers around it are layers like any other."""
