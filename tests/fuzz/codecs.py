"""Fuzzing what proxies read from strangers: a message, a wish for more, or our error.

``python -m tests.fuzz.codecs [SECONDS] [SEED]`` changes and crosses messages at random for so long,
prints the seed first and the input last when something else comes out, and ends with 1.
``tests/stack/codec/test_fuzz.py`` runs the same targets shortly.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from qanat.stack.address import Address
from qanat.stack.codec.client_hello import LONGEST_HELLO, parse_client_hello
from qanat.stack.codec.http1 import HEAD_CAP, parse_request_head, parse_response_head
from qanat.stack.codec.http_connect import LONGEST_HEAD, encode_connect, parse_connect_answer
from qanat.stack.codec.proxy_protocol import (
    LONGEST_HEADER,
    ProxyHeader,
    encode_proxy_header,
    parse_proxy_header,
)
from qanat.stack.codec.socks4 import encode_reply4, encode_request4, parse_reply4, parse_request4
from qanat.stack.codec.socks5 import (
    Command,
    Credentials,
    encode_credentials,
    encode_greeting,
    encode_reply,
    encode_request,
    parse_credentials,
    parse_greeting,
    parse_method,
    parse_reply,
    parse_request,
    parse_status,
)
from qanat.stack.codec.verdict import NeedMore, Parsed
from qanat.stack.errors import RemoteProtocolError
from tests.support.hellos import in_records, made_hello
from tests.support.splits import survives

__all__ = ["TARGETS", "fuzz", "main"]


def _proxy_header(data: bytes) -> Parsed[ProxyHeader] | NeedMore:
    found = parse_proxy_header(data)
    if found is None:
        raise RemoteProtocolError("something else")
    return found


TARGETS: Final[dict[str, tuple[Callable[[bytes], Any], int]]] = {
    "socks5 greeting": (parse_greeting, 257),
    "socks5 method": (parse_method, 2),
    "socks5 credentials": (parse_credentials, 513),
    "socks5 status": (parse_status, 2),
    "socks5 request": (parse_request, 262),
    "socks5 reply": (parse_reply, 262),
    "socks4 request": (parse_request4, 8 + 256 + 256),
    "socks4 reply": (parse_reply4, 8),
    "connect answer": (parse_connect_answer, LONGEST_HEAD),
    "request head": (parse_request_head, HEAD_CAP),
    "response head": (parse_response_head, HEAD_CAP),
    "client hello": (parse_client_hello, LONGEST_HELLO),
    "proxy header": (_proxy_header, LONGEST_HEADER),
}

_HOSTS: Final = ("192.0.2.1", "2001:db8::1", "a.example", "x" * 63 + ".example")
_HEADER: Final = ProxyHeader(Address("192.0.2.7", 51000), Address("192.0.2.8", 443), ((4, b"x"),))
_SEEDS: Final = [
    encode_greeting([0, 2]),
    encode_credentials(Credentials(b"john", b"secret")),
    *(encode_request(Command.CONNECT, Address(host, 443)) for host in _HOSTS),
    *(encode_reply(0, Address(host, 443)) for host in _HOSTS),
    encode_request4(Command.CONNECT, Address("192.0.2.1", 80), b"john"),
    encode_request4(Command.CONNECT, Address("a.example", 80), b""),
    encode_reply4(0x5A),
    encode_connect(Address("a.example", 443)),
    b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    in_records(made_hello(name=b"a.example", alpn=(b"h2",), encrypted=True), 40),
    encode_proxy_header(1, _HEADER),
    encode_proxy_header(2, _HEADER, checksum=True),
    b"HTTP/1.1 200 OK\r\nVia: 1.1 x\r\n\r\n",
    b"HTTP/1.0 407 No\r\nProxy-Authenticate: Basic realm=x\r\n\r\n",
]


def _changed(chance: random.Random) -> bytes:
    raw = bytearray(chance.choice(_SEEDS))
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(raw) + 1)
        match chance.randrange(4):
            case 0 if at < len(raw):
                raw[at] = chance.choice((0, 1, 4, 5, 13, 10, 58, 127, 128, 255))
            case 1:
                del raw[at : at + chance.randrange(1, 8)]
            case 2:
                raw[at:at] = chance.randbytes(chance.randrange(1, 300))
            case _:
                raw += chance.choice(_SEEDS)
    return bytes(raw)


def fuzz(seconds: float, seed: int) -> tuple[str, bytes] | None:
    """The first target that broke its promise, and the input; None when none did."""
    chance = random.Random(seed)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        raw = _changed(chance)
        for name, (parse, cap) in TARGETS.items():
            try:
                survives(parse, raw, cap)
            except Exception:
                return name, raw
    return None


def main(words: list[str]) -> int:
    seconds = float(words[0]) if words else 10.0
    seed = int(words[1]) if len(words) > 1 else random.SystemRandom().randrange(1 << 32)
    sys.stdout.write(f"seed {seed}\n")
    broken = fuzz(seconds, seed)
    if broken is None:
        return 0
    sys.stdout.write(f"{broken[0]}: {broken[1]!r}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
