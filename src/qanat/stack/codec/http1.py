"""HTTP/1.1 heads and bodies, as strictly as RFC 9112 lets a proxy be.

A proxy and the server behind it must agree on where a message ends, or one client's bytes become
another's request. So whatever could be read in two ways is refused: bare CR or LF, folded lines,
blanks before a colon, both lengths, several lengths, codings other than ``chunked``, chunk sizes
that are not plain hexadecimal. Field names keep their spelling and order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from qanat.stack.codec.verdict import NEED_MORE, NeedMore, Parsed
from qanat.stack.errors import RemoteProtocolError

__all__ = [
    "HEAD_CAP",
    "MOST_FIELDS",
    "NO_BODY",
    "Chunks",
    "Fields",
    "Framing",
    "RequestHead",
    "ResponseHead",
    "parse_request_head",
    "parse_response_head",
    "request_framing",
    "response_framing",
]

HEAD_CAP: Final = 65_536
"""Bytes of one head."""
MOST_FIELDS: Final = 128

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])\Z")
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?\Z")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*\Z")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}\Z")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\Z")
_BARE: Final = re.compile(rb"(?<!\r)\n")
_LONGEST_METHOD: Final = 64
_CHUNK_LINE_CAP: Final = 1024
_TRAILER_CAP: Final = 16_384
_EXTENSIONS_CAP: Final = 16_384
"""Bytes of all chunks of a body together."""

Fields = list[tuple[bytes, bytes]]
"""Names as they were spelt, in order, with their values."""


@dataclass(slots=True)
class RequestHead:
    method: bytes
    target: bytes
    minor: int
    """1 for HTTP/1.1, 0 for HTTP/1.0."""
    fields: Fields

    def values(self, name: bytes) -> list[bytes]:
        """Of all fields with this name (in lower case)."""
        return [value for key, value in self.fields if key.lower() == name]

    def listed(self, name: bytes) -> set[bytes]:
        """The members of a comma-separated field, in lower case."""
        return _listed(self.values(name))


@dataclass(slots=True)
class ResponseHead:
    status: int
    reason: bytes
    minor: int
    fields: Fields

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]

    def listed(self, name: bytes) -> set[bytes]:
        return _listed(self.values(name))


@dataclass(frozen=True, slots=True)
class Framing:
    """How long a body is: ``none``, so many bytes, in chunks, or until the stream ends."""

    kind: Literal["none", "length", "chunked", "until end"]
    length: int = 0


NO_BODY: Final = Framing("none")
CHUNKED: Final = Framing("chunked")
UNTIL_END: Final = Framing("until end")


def _listed(values: list[bytes]) -> set[bytes]:
    return {
        part.strip(b" \t").lower() for value in values for part in value.split(b",") if part.strip()
    }


def parse_request_head(data: bytes) -> Parsed[RequestHead] | NeedMore:
    """The request line and its fields; empty lines before it are passed over (RFC 9112, 2.2)."""
    skipped = 0
    while data.startswith(b"\r\n", skipped) and skipped < 8:
        skipped += 2
    found = _lines(data, skipped)
    if found is NEED_MORE:
        first = data[skipped : skipped + _LONGEST_METHOD + 1]
        if len(first) > _LONGEST_METHOD and b" " not in first:
            raise RemoteProtocolError("this is no HTTP request")
        return NEED_MORE
    lines, end = found
    match = _REQUEST.match(lines[0])
    if match is None:
        if re.search(rb" HTTP/[0-9.]+\Z", lines[0]) and not re.search(rb" HTTP/1\.", lines[0]):
            raise RemoteProtocolError("the version of HTTP is not served", status=505)
        raise RemoteProtocolError("the request line is malformed")
    if len(match[1]) > _LONGEST_METHOD:
        raise RemoteProtocolError("this is no HTTP request")
    head = RequestHead(match[1], match[2], match[3][0] - 48, _fields(lines))
    return Parsed(head, end)


def parse_response_head(data: bytes) -> Parsed[ResponseHead] | NeedMore:
    found = _lines(data, 0)
    if found is NEED_MORE:
        return NEED_MORE
    lines, end = found
    match = _STATUS.match(lines[0])
    if match is None:
        raise RemoteProtocolError("the status line is malformed", status=502)
    head = ResponseHead(int(match[2]), match[3] or b"", match[1][0] - 48, _fields(lines, 502))
    return Parsed(head, end)


def _lines(data: bytes, begin: int) -> tuple[list[bytes], int] | NeedMore:
    end = data.find(b"\r\n\r\n", begin)
    if end < 0 or end - begin > HEAD_CAP:
        if end >= 0 or len(data) - begin > HEAD_CAP:
            raise RemoteProtocolError("the head is too large", status=431)
        # A line that ends otherwise would make us wait for ever.
        if _BARE.search(data, begin) is not None:
            raise RemoteProtocolError("a line does not end in CR LF")
        if data.count(b"\r\n", begin) > MOST_FIELDS + 1:
            raise RemoteProtocolError(f"more than {MOST_FIELDS} fields", status=431)
        return NEED_MORE
    lines = data[begin:end].split(b"\r\n")
    if len(lines) > MOST_FIELDS + 1:
        raise RemoteProtocolError(f"more than {MOST_FIELDS} fields", status=431)
    return lines, end + 4


def _fields(lines: list[bytes], status: int = 400) -> Fields:
    fields: Fields = []
    for line in lines[1:]:
        match = _FIELD.match(line)
        if match is None:
            if line[:1] in (b" ", b"\t"):
                raise RemoteProtocolError("a field is folded over two lines", status=status)
            raise RemoteProtocolError("a field is malformed", status=status)
        fields.append((match[1], match[2]))
    return fields


def request_framing(head: RequestHead) -> Framing:
    """:raises RemoteProtocolError: there are two ways to read it, or one that we can't."""
    codings, lengths = head.values(b"transfer-encoding"), head.values(b"content-length")
    if codings:
        if head.minor == 0:
            raise RemoteProtocolError("HTTP/1.0 knows no Transfer-Encoding")
        if lengths:
            raise RemoteProtocolError("both Transfer-Encoding and Content-Length")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise RemoteProtocolError("a Transfer-Encoding other than chunked", status=501)
        return CHUNKED
    return _length(lengths, 400) if lengths else NO_BODY


def response_framing(head: ResponseHead, method: bytes) -> Framing:
    """:raises RemoteProtocolError: as for requests, with status 502."""
    if method == b"HEAD" or head.status in (204, 304) or head.status < 200:
        return NO_BODY
    codings, lengths = head.values(b"transfer-encoding"), head.values(b"content-length")
    if codings:
        if lengths or head.minor == 0 or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise RemoteProtocolError("the length of the answer is ambiguous", status=502)
        return CHUNKED
    return _length(lengths, 502) if lengths else UNTIL_END


def _length(values: list[bytes], status: int) -> Framing:
    if len(values) > 1 or _LENGTH.match(values[0]) is None:
        raise RemoteProtocolError("Content-Length is not one number", status=status)
    length = int(values[0])
    return Framing("length", length) if length else NO_BODY


class Chunks:
    """A chunked body on its way: finds its end and checks what lies between.

    ``feed`` takes bytes as they come; with ``payload`` given, what the chunks hold is added to it.
    """

    __slots__ = ("_extensions", "_held", "_left", "_state", "_status", "_trailer", "done")

    def __init__(self, status: int = 400) -> None:
        self._status = status
        self._state: Literal["size", "data", "after", "trailer"] = "size"
        self._left = 0
        self._held = b""
        """Of a line that is not complete."""
        self._trailer = 0
        self._extensions = 0
        self.done: bool = False

    def feed(self, data: bytes, payload: list[bytes] | None = None) -> int:
        """How many of the bytes belong to the body; fewer than all only when it is done."""
        place = 0
        while place < len(data) and not self.done:
            if self._state == "data":
                taken = min(self._left, len(data) - place)
                if payload is not None:
                    payload.append(data[place : place + taken])
                place += taken
                self._left -= taken
                if not self._left:
                    self._state = "after"
                continue
            end = data.find(b"\n", place)
            stop = len(data) if end < 0 else end + 1
            self._held += data[place:stop]
            place = stop
            if len(self._held) > _CHUNK_LINE_CAP:
                raise self._wrong("a line of a chunked body is too long")
            if end >= 0:
                line, self._held = self._held, b""
                self._line(line)
        return place

    def _line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise self._wrong("a line of a chunked body does not end in CR LF")
        line = line[:-2]
        if self._state == "after":
            if line:
                raise self._wrong("a chunk is longer than it says")
            self._state = "size"
        elif self._state == "size":
            match = _CHUNK.match(line)
            if match is None:
                raise self._wrong("a chunk has no proper size")
            # Nobody uses extensions; a body of them would pass for next to nothing.
            self._extensions += len(line) - len(match[1])
            if self._extensions > _EXTENSIONS_CAP:
                raise self._wrong("the extensions of a chunked body are too large")
            self._left = int(match[1], 16)
            self._state = "data" if self._left else "trailer"
        elif not line:
            self.done = True
        else:
            self._trailer += len(line)
            if self._trailer > _TRAILER_CAP or _FIELD.match(line) is None:
                raise self._wrong("the trailer of a chunked body is malformed or too large")

    def _wrong(self, message: str) -> RemoteProtocolError:
        return RemoteProtocolError(message, status=self._status)
