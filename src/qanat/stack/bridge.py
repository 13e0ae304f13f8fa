"""A pair of live streams: the client's, and the one to where it wanted to go."""

from __future__ import annotations

from dataclasses import dataclass

from qanat.stack.extensions import Extensions
from qanat.stack.stream.base import Stream

__all__ = ["Bridge"]


@dataclass(slots=True)
class Bridge:
    """What a proxy has in hands once it said yes: relay it, peek into it, or take TLS apart."""

    client: Stream
    upstream: Stream

    @property
    def ext(self) -> Extensions:
        """Those of the client's side."""
        return self.client.ext
