"""The client's half of HTTP CONNECT (RFC 9110 section 9.3.6), without I/O: one request, one head.

Whatever follows the head of a 2xx answer belongs to the tunnel. This is no HTTP client: bodies of
refusals are not read.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Final

from qanat.stack.address import Address
from qanat.stack.codec.socks5 import Credentials
from qanat.stack.codec.verdict import NEED_MORE, NeedMore, Parsed
from qanat.stack.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["ConnectAnswer", "encode_connect", "parse_connect_answer"]

LONGEST_HEAD: Final = 16 * 1024
"""Bytes of an answer's head: twice what most servers allow in requests."""

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\Z")
_FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*?)[ \t]*\Z")
_TARGET: Final = re.compile(r"[\x21-\x7e]+\Z")


@dataclass(frozen=True, slots=True)
class ConnectAnswer:
    status: int
    fields: tuple[tuple[str, str], ...]
    """Names in small letters."""

    def field(self, name: str) -> str | None:
        return next((value for key, value in self.fields if key == name), None)


def encode_connect(target: Address, credentials: Credentials | None = None) -> bytes:
    host = target.host.partition("%")[0]
    if _TARGET.match(host) is None:
        raise LocalProtocolError(f"{host!r} can't be asked for by HTTP")
    authority = str(Address(host, target.port)).encode("ascii")
    lines = [b"CONNECT %b HTTP/1.1" % authority, b"Host: %b" % authority]
    if credentials is not None:
        if b":" in credentials.name:
            raise LocalProtocolError("a name with a colon can't be told by HTTP")
        basic = b64encode(credentials.name + b":" + credentials.password)
        lines.append(b"Proxy-Authorization: Basic %b" % basic)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def parse_connect_answer(data: bytes) -> Parsed[ConnectAnswer] | NeedMore:
    """The head of an answer, an interim one (1xx) among them."""
    if not b"HTTP/1."[: len(data)] == data[:7]:
        raise RemoteProtocolError("the answer to CONNECT is not HTTP/1")
    end = data.find(b"\r\n\r\n", 0, LONGEST_HEAD)
    if end < 0:
        if len(data) >= LONGEST_HEAD:
            raise RemoteProtocolError(f"the answer's head is longer than {LONGEST_HEAD} bytes")
        return NEED_MORE
    first, *rest = data[:end].split(b"\r\n")
    status = _STATUS.match(first)
    if status is None:
        raise RemoteProtocolError("the answer to CONNECT has no status")
    fields = []
    for line in rest:
        field = _FIELD.match(line)
        if field is None:
            raise RemoteProtocolError("the answer to CONNECT has a line that is no field")
        fields.append((field[1].decode("ascii").lower(), field[2].decode("latin-1")))
    return Parsed(ConnectAnswer(int(status[1]), tuple(fields)), end + 4)
