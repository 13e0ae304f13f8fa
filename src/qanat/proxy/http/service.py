"""The HTTP proxy as a service: one client connection with all its requests.

CONNECT dials first and answers then, so that a client learns why it failed; what follows is a
tunnel. Everything else is a request in absolute form, which is forwarded with its body as it comes
and answered likewise; both connections are kept for the next request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from qanat.proxy.auth import Authenticator
from qanat.proxy.http.client import Client
from qanat.proxy.http.forwarding import Forwarded
from qanat.proxy.http.limits import UserLimits
from qanat.stack.bridge import Bridge
from qanat.stack.connect.target import Connector
from qanat.stack.relaying import Relay
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream

__all__ = ["HttpProxy"]


@dataclass(frozen=True, slots=True)
class HttpProxy:
    """Returns what ``then`` returns for a tunnel, and None after plain requests.

    Raises what ended a client that got nothing, after telling it by a page.
    """

    connect: Connector
    auth: Authenticator | None = None
    guest: bool = False
    """Whether clients without credentials are served, too."""
    then: Service[Bridge, Any] = field(default_factory=Relay)
    lazy: bool = False
    """Whether CONNECT is answered before the target is reached, as some clients want for speed."""
    head_timeout: float | None = 10.0
    """Seconds for a head that has begun, and for the first one."""
    idle_timeout: float | None = 60.0
    """Seconds for the next request, and for each piece of a body."""
    connect_timeout: float | None = 30.0
    answer_timeout: float | None = 300.0
    """Seconds for a server to begin its answer."""
    forwarded: Callable[[Forwarded], Any] | None = field(default=None, repr=False)
    each: Callable[[], bool] = field(default=lambda: True, repr=False)
    """Whether ``forwarded`` is to hear at once of each request that the engine exchanges."""
    limits: UserLimits | None = field(default=None, repr=False)
    """What holds for each user whose requests are forwarded; for tunnels that is up to ``then``."""
    lower: bool = True
    """Whether the engine may exchange messages of a client that keeps asking one server."""

    async def __call__(self, stream: Stream, /) -> Any:
        async with Client(self, stream) as client:
            return await client.serve()
