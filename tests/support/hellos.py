"""ClientHellos: real ones of the standard library, and made ones with what a test needs."""

from __future__ import annotations

import ssl
import struct

__all__ = ["in_records", "made_hello", "real_hello"]


def real_hello(server_name: str | None, alpn: tuple[str, ...] = ()) -> bytes:
    """What Python's own client sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname=server_name)
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake of one message")


def _block(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def made_hello(
    *,
    name: bytes | None = None,
    alpn: tuple[bytes, ...] = (),
    padding: int = 0,
    encrypted: bool = False,
    more: bytes = b"",
) -> bytes:
    """One handshake message, without its record."""
    extensions = more
    if name is not None:
        extensions += b"\0\0" + _block(2, _block(2, b"\0" + _block(2, name)))
    if alpn:
        names = b"".join(_block(1, one) for one in alpn)
        extensions += b"\0\x10" + _block(2, _block(2, names))
    if encrypted:
        extensions += b"\xfe\x0d" + _block(2, bytes(40))
    if padding:
        extensions += struct.pack("!H", 21) + _block(2, bytes(padding))
    ciphers = _block(2, b"\x13\x01\x13\x02\x1a\x1a")
    body = b"\3\3" + bytes(32) + b"\0" + ciphers + b"\1\0" + _block(2, extensions)
    return b"\1" + _block(3, body)


def in_records(message: bytes, size: int = 1 << 14) -> bytes:
    """The message in records of at most so many bytes each."""
    return b"".join(
        b"\x16\3\1" + _block(2, message[at : at + size]) for at in range(0, len(message), size)
    )
