"""The first message of a TLS client, without I/O: which name it asks for, and what it offers.

The message may come in several records and in many pieces. What it says is enough to route by;
whether the rest of the handshake will work is for whoever terminates it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from typing import Final

from qanat.stack.codec.verdict import NEED_MORE, NeedMore, Parsed
from qanat.stack.errors import RemoteProtocolError

__all__ = ["LONGEST_HELLO", "ClientHello", "hello_of_message", "parse_client_hello"]

LONGEST_HELLO: Final = 1 << 16
"""Bytes of all its records; with keys for post-quantum exchanges some two thousand are usual."""
_MOST_RECORDS: Final = 1024
"""Each look at what came walks over all of them, so that many tiny ones are costly and no use."""
_HANDSHAKE: Final = 0x16
_CLIENT_HELLO: Final = 1
_LONGEST_RECORD: Final = 1 << 14
_SERVER_NAME: Final = 0x0000
_SIGNATURES: Final = 0x000D
_ALPN: Final = 0x0010
_VERSIONS: Final = 0x002B
_ENCRYPTED: Final = 0xFE0D
_JA4_VERSIONS: Final = {
    0x0304: "13",
    0x0303: "12",
    0x0302: "11",
    0x0301: "10",
    0x0300: "s3",
}


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client offers; also a fact in the extensions of a stream that was looked at."""

    server_name: str | None
    """In small letters, without a dot at the end. With :attr:`encrypted`, the outer name."""
    alpn: tuple[str, ...]
    versions: tuple[int, ...]
    """As on the wire, 0x0304 for TLS 1.3."""
    ciphers: tuple[int, ...]
    extensions: tuple[int, ...]
    signatures: tuple[int, ...]
    encrypted: bool
    """Whether it carries an Encrypted Client Hello; many clients send one that means nothing."""

    @property
    def ja4(self) -> str:
        """The fingerprint of this name, of a client over TCP."""
        ciphers = [f"{code:04x}" for code in self.ciphers if not _is_grease(code)]
        extensions = [code for code in self.extensions if not _is_grease(code)]
        versions = [code for code in self.versions if not _is_grease(code)]
        version = _JA4_VERSIONS.get(max(versions, default=0), "00")
        named = "d" if _SERVER_NAME in extensions else "i"
        counts = f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}"
        sorted_codes = sorted(
            f"{code:04x}" for code in extensions if code not in (_SERVER_NAME, _ALPN)
        )
        rest = ",".join(sorted_codes)
        if self.signatures:
            rest += "_" + ",".join(
                f"{code:04x}" for code in self.signatures if not _is_grease(code)
            )
        return "_".join(
            (
                f"t{version}{named}{counts}{_ends(self.alpn)}",
                _short_hash(",".join(sorted(ciphers))),
                _short_hash(rest if sorted_codes else ""),
            )
        )


def parse_client_hello(data: bytes) -> Parsed[ClientHello] | NeedMore:
    """The hello that the bytes begin with; its size counts whole records.

    :raises RemoteProtocolError: it is none.
    """
    message = bytearray()
    at = 0
    for _ in range(_MOST_RECORDS):
        head = data[at : at + 5]
        if head and head[0] != _HANDSHAKE:
            raise RemoteProtocolError("the first bytes are no TLS handshake")
        if len(head) > 1 and head[1] != 3:
            raise RemoteProtocolError(f"TLS records have version 3, not {head[1]}")
        if len(head) < 5:
            return NEED_MORE
        size = head[3] << 8 | head[4]
        if not 0 < size <= _LONGEST_RECORD:
            raise RemoteProtocolError(f"a TLS record of {size} bytes")
        message += data[at + 5 : at + 5 + size]
        if message and message[0] != _CLIENT_HELLO:
            raise RemoteProtocolError(f"a handshake begins with a hello, not with {message[0]}")
        at += 5 + size
        length = int.from_bytes(message[1:4], "big") if len(message) >= 4 else 0
        if length > LONGEST_HELLO or at + 5 > LONGEST_HELLO:
            raise RemoteProtocolError(f"a ClientHello of more than {LONGEST_HELLO} bytes")
        if at > len(data):
            return NEED_MORE
        if len(message) >= 4 + length and len(message) >= 4:
            return Parsed(_hello(_Reader(bytes(message[4 : 4 + length]))), at)
    raise RemoteProtocolError(f"a ClientHello in more than {_MOST_RECORDS} records")


def hello_of_message(message: bytes) -> ClientHello:
    """The same, of a handshake message without the heads of its records.

    :raises RemoteProtocolError: it is none.
    """
    if message[:1] != bytes([_CLIENT_HELLO]) or int.from_bytes(message[1:4]) != len(message) - 4:
        raise RemoteProtocolError("this is no ClientHello")
    return _hello(_Reader(message[4:]))


class _Reader:
    """Takes what is there; too little is the peer's mistake, since the message is whole."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        part = self._data[self._at : self._at + count]
        if len(part) < count:
            raise RemoteProtocolError("a ClientHello whose parts are longer than itself")
        self._at += count
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def block(self, size: int) -> _Reader:
        """What a length of ``size`` bytes announces."""
        return _Reader(self.take(self.number(size)))

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def numbers(self) -> Iterator[int]:
        while self:
            yield self.number(2)


def _hello(reader: _Reader) -> ClientHello:
    legacy = reader.number(2)
    reader.take(32)
    reader.block(1)
    ciphers = tuple(reader.block(2).numbers())
    reader.block(1)
    found: dict[int, _Reader] = {}
    order: list[int] = []
    extensions = reader.block(2) if reader else _Reader(b"")
    while extensions:
        code = extensions.number(2)
        if code in found:
            raise RemoteProtocolError(f"extension {code} twice in a ClientHello")
        order.append(code)
        found[code] = extensions.block(2)
    versions = tuple(found[_VERSIONS].block(1).numbers()) if _VERSIONS in found else (legacy,)
    signatures = tuple(found[_SIGNATURES].block(2).numbers()) if _SIGNATURES in found else ()
    return ClientHello(
        server_name=_name(found[_SERVER_NAME]) if _SERVER_NAME in found else None,
        alpn=tuple(_protocols(found[_ALPN])) if _ALPN in found else (),
        versions=versions,
        ciphers=ciphers,
        extensions=tuple(order),
        signatures=signatures,
        encrypted=_ENCRYPTED in found,
    )


def _name(extension: _Reader) -> str | None:
    """The first host name; none where there is an address, which is not allowed there."""
    names = extension.block(2)
    while names:
        kind, raw = names.number(1), names.block(2)
        if kind != 0:
            continue
        text = raw.rest().decode("latin-1").lower().removesuffix(".")
        if not text or not all(letter.isalnum() or letter in "-._" for letter in text):
            raise RemoteProtocolError(f"{text!r} is no name to ask a server for")
        if not text.isascii():
            raise RemoteProtocolError("a server's name that is not ASCII")
        try:
            ip_address(text)
        except ValueError:
            return text
        return None
    return None


def _protocols(extension: _Reader) -> Iterator[str]:
    names = extension.block(2)
    while names:
        raw = names.block(1)
        yield raw.rest().decode("latin-1")


def _is_grease(code: int) -> bool:
    """Values that mean nothing, sent so that nobody gets used to their absence."""
    return code & 0x0F0F == 0x0A0A and code >> 8 == code & 0xFF


def _ends(protocols: tuple[str, ...]) -> str:
    if not protocols or not protocols[0]:
        return "00"
    raw = protocols[0].encode("latin-1")
    first, last = raw[:1], raw[-1:]
    if first.isalnum() and last.isalnum():
        return (first + last).decode()
    return first.hex()[0] + last.hex()[1]


def _short_hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12] if text else "0" * 12
