"""One line for each flow that ended. Takes any object with a flow's fields; knows no relay."""

from __future__ import annotations

import logging
from typing import Final, Protocol

from .logs import ACCESS

__all__ = ["FIELDS", "TLS_FIELDS", "EndedFlow", "is_written", "write_access"]

FIELDS: Final = (
    "id",
    "endpoint",
    "protocol",
    "client",
    "target",
    "peer",
    "bytes_up",
    "bytes_down",
    "packets_up",
    "packets_down",
    "duration",
    "connect",
    "reason",
    "detail",
)
"""What a line holds, in this order; what is None is left out of the readable face."""

TLS_FIELDS: Final = ("tls", "sni", "alpn", "client_certificate", "target_tls", "target_alpn")
"""What the lines of flows with TLS on either side hold besides."""

_TCP_FIELDS = tuple(name for name in FIELDS if not name.startswith("packets"))
_logger = logging.getLogger(ACCESS)


def is_written() -> bool:
    """Whether anybody wants the lines, so that there is a use in gathering what they hold."""
    return _logger.isEnabledFor(logging.INFO)


class EndedFlow(Protocol):
    """What is read of a flow (see ``qanat.observe.flow.Flow``)."""

    @property
    def id(self) -> int: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def client(self) -> str: ...
    @property
    def user(self) -> str | None: ...
    @property
    def target(self) -> str: ...
    @property
    def peer(self) -> str | None: ...
    @property
    def bytes_up(self) -> int: ...
    @property
    def bytes_down(self) -> int: ...
    @property
    def packets_up(self) -> int: ...
    @property
    def packets_down(self) -> int: ...
    @property
    def duration(self) -> float: ...
    @property
    def connect(self) -> float | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def detail(self) -> str | None: ...
    @property
    def tls(self) -> str | None: ...
    @property
    def sni(self) -> str | None: ...
    @property
    def alpn(self) -> str | None: ...
    @property
    def client_certificate(self) -> str | None: ...
    @property
    def target_tls(self) -> str | None: ...
    @property
    def target_alpn(self) -> str | None: ...


def write_access(flow: EndedFlow) -> None:
    """Log the flow's line on the logger ``qanat.access`` at INFO."""
    names = FIELDS if flow.protocol == "udp" else _TCP_FIELDS
    if flow.user is not None:
        names += ("user",)
    if flow.tls is not None or flow.target_tls is not None:
        names += TLS_FIELDS
    fields = {name: getattr(flow, name) for name in names}
    _logger.info("flow ended", extra={"fields": fields, "show_fields": True})
