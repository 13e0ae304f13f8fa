"""Which fields belong to one hop, and what a proxy adds of its own (RFC 9110, 7.6; RFC 9112)."""

from __future__ import annotations

import secrets
from typing import Final

from qanat.stack.codec.http1 import Fields, RequestHead, ResponseHead
from qanat.stack.errors import RemoteProtocolError

__all__ = [
    "OUR_NAME",
    "client_keeps_alive",
    "forwarded_request",
    "forwarded_response",
    "server_keeps_alive",
    "wants_upgrade",
]

OUR_NAME: Final = f"qanat-{secrets.token_hex(4)}".encode()
"""In ``Via``: by it a request is known that has come back to us."""

_HOP: Final = frozenset(
    {
        b"connection",
        b"proxy-connection",
        b"keep-alive",
        b"te",
        b"upgrade",
        b"transfer-encoding",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"proxy-authentication-info",
    }
)
_NEVER_LISTED: Final = frozenset({b"host", b"content-length", b"authorization", b"cache-control"})
"""What ``Connection`` may not take away: a message without these would be another one."""


def wants_upgrade(head: RequestHead | ResponseHead) -> bytes | None:
    """The protocol that is asked for, or that was agreed on."""
    if b"upgrade" not in head.listed(b"connection"):
        return None
    wanted = head.values(b"upgrade")
    return wanted[0] if len(wanted) == 1 and wanted[0] else None


def _kept(head: RequestHead | ResponseHead) -> tuple[Fields, list[bytes]]:
    """The fields for the next hop, and what ``Via`` says so far."""
    listed = head.listed(b"connection") - _NEVER_LISTED
    kept, via = [], []
    for name, value in head.fields:
        key = name.lower()
        if key == b"via":
            via.append(value)
        elif key not in _HOP and key not in listed:
            kept.append((name, value))
    return kept, via


def forwarded_request(head: RequestHead, path: bytes, host: bytes, *, chunked: bool) -> bytes:
    """The head for the server.

    :raises RemoteProtocolError: it has been here before.
    """
    kept, via = _kept(head)
    if any(OUR_NAME in value for value in via):
        raise RemoteProtocolError("the request goes round in circles", status=508)
    lines = [b"%s %s HTTP/1.1" % (head.method, path), b"Host: " + host]
    lines += [b"%s: %s" % (name, value) for name, value in kept if name.lower() != b"host"]
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
    if b"trailers" in head.listed(b"te"):
        lines.append(b"TE: trailers")
        connection = [b"TE"]
    else:
        connection = []
    wanted = wants_upgrade(head)
    if wanted is not None:
        connection.append(b"Upgrade")
        lines.append(b"Upgrade: " + wanted)
    if connection:
        lines.append(b"Connection: " + b", ".join(connection))
    lines.append(b"Via: " + b", ".join([*via, b"1.%d %s" % (head.minor, OUR_NAME)]))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def forwarded_response(
    head: ResponseHead, *, chunked: bool, close: bool, old_client: bool
) -> bytes:
    """The head for the client."""
    kept, via = _kept(head)
    lines = [b"HTTP/1.1 %d %s" % (head.status, head.reason)]
    lines += [b"%s: %s" % field for field in kept]
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
    agreed = wants_upgrade(head) if head.status == 101 else None
    if agreed is not None:
        lines += [b"Connection: Upgrade", b"Upgrade: " + agreed]
    elif head.status >= 200:
        if close:
            lines.append(b"Connection: close")
        elif old_client:
            lines.append(b"Connection: keep-alive")
    lines.append(b"Via: " + b", ".join([*via, b"1.%d %s" % (head.minor, OUR_NAME)]))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def client_keeps_alive(head: RequestHead) -> bool:
    said = head.listed(b"connection") | head.listed(b"proxy-connection")
    return b"close" not in said if head.minor else b"keep-alive" in said


def server_keeps_alive(head: ResponseHead) -> bool:
    said = head.listed(b"connection")
    return b"close" not in said if head.minor else b"keep-alive" in said
