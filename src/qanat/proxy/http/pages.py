"""Small readable pages for what a proxy has to refuse, with ``Proxy-Status`` (RFC 9209) for those
who look closer."""

from __future__ import annotations

from html import escape
from http import HTTPStatus
from typing import Final

from qanat.stack.errors import (
    AuthRequired,
    ConnectError,
    Denied,
    LimitReached,
    PhaseTimeout,
    answer_to,
)

__all__ = ["REALM", "page", "page_for"]

REALM: Final = b"qanat"

_KINDS: Final = {
    "dns": "dns_error",
    "refused": "connection_refused",
    "reset": "connection_terminated",
    "net-unreachable": "destination_ip_unroutable",
    "host-unreachable": "destination_ip_unroutable",
    "timeout": "connection_timeout",
    "tls": "tls_protocol_error",
    "denied": "destination_ip_prohibited",
    "limit": "connection_limit_reached",
}


def page(
    status: int,
    text: str,
    *,
    error: str = "http_request_error",
    fields: tuple[bytes, ...] = (),
    head_only: bool = False,
) -> bytes:
    """A whole answer that ends the connection."""
    phrase = HTTPStatus(status).phrase
    body = (
        f"<!doctype html><title>{status} {phrase}</title>\n"
        f"<h1>{phrase}</h1>\n<p>{escape(text)}</p>\n<p>qanat proxy</p>\n"
    ).encode()
    lines = [
        f"HTTP/1.1 {status} {phrase}".encode(),
        b"Content-Type: text/html; charset=utf-8",
        b"Content-Length: %d" % len(body),
        f"Proxy-Status: qanat; error={error}".encode(),
        b"Cache-Control: no-store",
        b"Connection: close",
        *fields,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if head_only else body)


def page_for(failure: Exception, *, head_only: bool = False) -> bytes:
    """What went wrong, as far as it is the client's business."""
    answer = answer_to(failure)
    error, text = "http_request_error", str(failure)
    extra: list[bytes] = []
    match failure:
        case ConnectError():
            error = _KINDS.get(failure.kind, "destination_unavailable")
        case Denied():
            error = "http_request_denied"
        case AuthRequired():
            error = "http_request_denied"
            extra.append(b'Proxy-Authenticate: Basic realm="' + REALM + b'", charset="UTF-8"')
        case LimitReached():
            error = "connection_limit_reached"
            if failure.retry_after is not None:
                extra.append(b"Retry-After: %d" % max(1, round(failure.retry_after)))
        case PhaseTimeout():
            error = "connection_timeout" if failure.phase == "connect" else "http_request_error"
        case _ if answer.traceback:
            error, text = "proxy_internal_error", "the proxy made a mistake"
    return page(
        answer.http_status,
        text,
        error=error,
        fields=tuple(extra),
        head_only=head_only,
    )
