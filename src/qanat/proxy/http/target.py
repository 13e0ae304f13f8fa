"""Where a request wants to go: authority form and absolute form (RFC 9112, 3.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from qanat.stack.address import Address
from qanat.stack.codec.http1 import RequestHead
from qanat.stack.errors import RemoteProtocolError

__all__ = ["Absolute", "absolute_target", "connect_target"]

_ABSOLUTE: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#]*)([^#]*)\Z")


@dataclass(frozen=True, slots=True)
class Absolute:
    address: Address
    host: bytes
    """For the ``Host`` field: the authority as it was written."""
    path: bytes
    """In origin form."""


def connect_target(head: RequestHead) -> Address:
    """:raises RemoteProtocolError: it is no host and port."""
    try:
        return Address.parse(head.target.decode("ascii"))
    except (ValueError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"CONNECT needs a host and a port: {error}") from None


def absolute_target(head: RequestHead) -> Absolute:
    """:raises RemoteProtocolError: it is not for a proxy, or nothing that we forward."""
    match = _ABSOLUTE.match(head.target)
    if match is None:
        raise RemoteProtocolError("this is a proxy: a request needs a whole URL, or CONNECT")
    scheme, authority, path = match[1].lower(), match[2], match[3]
    if scheme == b"https":
        raise RemoteProtocolError("https:// goes by CONNECT", status=400)
    if scheme != b"http":
        raise RemoteProtocolError(f"the scheme {scheme.decode()} is not served", status=501)
    if b"@" in authority:
        raise RemoteProtocolError("a URL with a user in it is not forwarded")
    try:
        address = Address.parse(authority.decode("ascii"), 80)
    except (ValueError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"the URL has no proper host: {error}") from None
    if not path or path[:1] == b"?":
        path = b"*" if head.method == b"OPTIONS" and not path else b"/" + path
    return Absolute(address, authority, path)
