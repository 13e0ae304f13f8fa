"""What we read as one message, another strict reader (h11) must read as the same message.

Whatever we accept goes on to a server. So these tests look at accepted messages: the end of the
body, its bytes, and what is left for the next request. What we refuse can't smuggle anything.
"""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qanat.stack.codec.http1 import (
    Chunks,
    Framing,
    parse_request_head,
    request_framing,
)
from qanat.stack.codec.verdict import Parsed
from qanat.stack.errors import RemoteProtocolError

__all__: list[str] = []

NEXT = b"GET /admin HTTP/1.1\r\nHost: b.example\r\n\r\n"


def ours(text: bytes) -> tuple[bytes, bytes] | None:
    """The body and what follows it, or None if the message is refused or not complete."""
    try:
        found = parse_request_head(text)
        if not isinstance(found, Parsed):
            return None
        framing: Framing = request_framing(found.value)
        rest = text[found.size :]
        if framing.kind == "chunked":
            chunks, payload = Chunks(), list[bytes]()
            used = chunks.feed(rest, payload)
            return (b"".join(payload), rest[used:]) if chunks.done else None
    except RemoteProtocolError:
        return None
    assert framing.kind in ("none", "length")
    if len(rest) < framing.length:
        return None
    return rest[: framing.length], rest[framing.length :]


def theirs(text: bytes) -> tuple[bytes, bytes] | None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(text)
    body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return body, connection.trailing_data[0]
            elif not isinstance(event, h11.Request):
                return None
    except h11.RemoteProtocolError:
        return None


def message(fields: bytes, body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a.example\r\n" + fields + b"\r\n" + body + NEXT


names = st.sampled_from(
    [b"Content-Length", b"content-length", b"Transfer-Encoding", b"TRANSFER-ENCODING", b"X-A"]
)
after_names = st.sampled_from(
    [b": ", b": ", b": ", b":", b":\t", b" :", b"\t: ", b":\r\n ", b": \x0b"]
)
values = st.sampled_from(
    [
        b"0",
        b"5",
        b"6",
        b"05",
        b"+5",
        b"5,5",
        b"5 ",
        b"5\t",
        b"",
        b"chunked",
        b"Chunked",
        b"chunked,",
        b"gzip, chunked",
        b"identity",
        b'"chunked"',
        b"chunked;q=1",
        b"chunked\x00",
    ]
)
ends = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n", b" \r\n"])
fields = st.lists(st.tuples(names, after_names, values, ends).map(b"".join), max_size=3)
bodies = st.sampled_from([b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n"])


@settings(max_examples=400, deadline=None)
@given(fields.map(b"".join), bodies)
@example(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n")
@example(b"Content-Length: 5\r\n", b"hello")
def test_lengths_mean_the_same_to_others(lines: bytes, body: bytes) -> None:
    text = message(lines, body)
    mine = ours(text)
    if mine is not None:
        assert mine == theirs(text)


pieces = st.sampled_from(
    [
        b"0",
        b"5",
        b"05",
        b"a",
        b"\r\n",
        b"\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b";a=b",
        b";",
        b" ",
        b"\t",
        b"hello",
        b"hello",
        b"A: b",
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"0x",
        b"-",
        b"_",
    ]
)


@st.composite
def damaged_bodies(draw: st.DrawFn) -> bytes:
    """Chunks as they should be, with at most one piece put where it may not belong."""
    parts = draw(st.lists(st.sampled_from([b"1\r\nx\r\n", b"5\r\nhello\r\n"]), max_size=3))
    whole = b"".join(parts) + draw(st.sampled_from([b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n"]))
    place = draw(st.integers(0, len(whole)))
    return whole[:place] + draw(st.just(b"") | pieces) + whole[place:]


@settings(max_examples=400, deadline=None)
@given(damaged_bodies() | st.lists(pieces, max_size=12).map(b"".join))
@example(b"5\r\nhello\r\n0\r\n\r\n")
@example(b"5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n")
def test_chunks_mean_the_same_to_others(body: bytes) -> None:
    text = message(b"Transfer-Encoding: chunked\r\n", body)
    mine = ours(text)
    if mine is not None:
        assert mine == theirs(text)


@pytest.mark.parametrize(
    ("lines", "body", "meant"),
    [
        (b"", b"", b""),
        (b"Content-Length: 5\r\n", b"hello", b"hello"),
        (b"Content-Length: 005\r\n", b"hello", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"Transfer-Encoding: Chunked\r\n", b"05;x\r\nhello\r\n0;y\r\nA: b\r\n\r\n", b"hello"),
    ],
)
def test_plain_messages_are_accepted(lines: bytes, body: bytes, meant: bytes) -> None:
    assert ours(message(lines, body)) == (meant, NEXT)
