"""Heads and bodies of HTTP/1.1: what h11 reads we read alike, and what is ambiguous is refused."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.stack.codec.http1 import (
    HEAD_CAP,
    MOST_FIELDS,
    Chunks,
    RequestHead,
    ResponseHead,
    parse_request_head,
    parse_response_head,
    request_framing,
    response_framing,
)
from qanat.stack.codec.verdict import NEED_MORE, Parsed
from qanat.stack.errors import RemoteProtocolError

__all__: list[str] = []


def request(text: bytes) -> RequestHead:
    found = parse_request_head(text)
    assert isinstance(found, Parsed)
    return found.value


def response(text: bytes) -> ResponseHead:
    found = parse_response_head(text)
    assert isinstance(found, Parsed)
    return found.value


def test_a_request_with_what_follows_it() -> None:
    text = b"\r\nGET http://a.example/?q HTTP/1.1\r\nHost:a.example\r\nX-Odd:  a b \t\r\n\r\nrest"
    found = parse_request_head(text)
    assert isinstance(found, Parsed)
    assert text[found.size :] == b"rest"
    head = found.value
    assert (head.method, head.target, head.minor) == (b"GET", b"http://a.example/?q", 1)
    assert head.fields == [(b"Host", b"a.example"), (b"X-Odd", b"a b")]


def test_every_prefix_needs_more() -> None:
    text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for length in range(len(text)):
        assert parse_request_head(text[:length]) is NEED_MORE
    answer = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"
    for length in range(len(answer)):
        assert parse_response_head(answer[:length]) is NEED_MORE


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\n\r\n", 400),
        (b"G<T / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (MOST_FIELDS + 1) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * HEAD_CAP + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * HEAD_CAP, 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (MOST_FIELDS + 1), 431),
        (b"\x16\x03\x01" + b"\x80" * 80, 400),
    ],
)
def test_malformed_heads(text: bytes, status: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_request_head(text)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        (b"Content-Length: 5\r\nContent-Length: 5", 400),
        (b"Content-Length: 5, 5", 400),
        (b"Content-Length: +5", 400),
        (b"Content-Length: 0x5", 400),
        (b"Content-Length: -1", 400),
        (b"Content-Length: ", 400),
        (b"Content-Length: 9999999999999999999", 400),
        (b"Transfer-Encoding: gzip, chunked", 501),
        (b"Transfer-Encoding: xchunked", 501),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 501),
        (b"Transfer-Encoding: \x0bchunked", 400),
        (b"Transfer-Encoding:\r\n chunked", 400),
    ],
)
def test_ambiguous_lengths_are_refused(fields: bytes, status: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        request_framing(request(b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\n"))
    assert caught.value.status == status


def test_http_1_0_has_no_chunks() -> None:
    with pytest.raises(RemoteProtocolError):
        request_framing(request(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"))


@pytest.mark.parametrize(
    ("method", "status", "fields", "kind"),
    [
        (b"GET", 200, b"Content-Length: 5", "length"),
        (b"GET", 200, b"Content-Length: 0", "none"),
        (b"GET", 200, b"Transfer-Encoding: Chunked", "chunked"),
        (b"GET", 200, b"X: y", "until end"),
        (b"HEAD", 200, b"Content-Length: 5", "none"),
        (b"GET", 204, b"X: y", "none"),
        (b"GET", 304, b"Content-Length: 5", "none"),
        (b"GET", 100, b"X: y", "none"),
    ],
)
def test_bodies_of_responses(method: bytes, status: int, fields: bytes, kind: str) -> None:
    head = response(b"HTTP/1.1 %d X\r\n%s\r\n\r\n" % (status, fields))
    assert response_framing(head, method).kind == kind


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Transfer-Encoding: gzip",
    ],
)
def test_ambiguous_answers_are_refused(fields: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        response_framing(response(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n"), b"GET")
    assert caught.value.status == 502


def chunked(parts: list[bytes], trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts if part)
    return body + b"0\r\n" + trailer + b"\r\n"


@given(st.lists(st.binary(max_size=50)), st.binary(max_size=20), st.data())
def test_chunks_in_any_pieces(parts: list[bytes], rest: bytes, data: st.DataObject) -> None:
    whole = chunked(parts, b"A: b\r\n") + rest
    chunks, payload, used = Chunks(), list[bytes](), 0
    while not chunks.done:
        size = data.draw(st.integers(1, 20))
        used += chunks.feed(whole[used : used + size], payload)
    assert b"".join(payload) == b"".join(parts)
    assert whole[used:] == rest


@pytest.mark.parametrize(
    "body",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"\r\n",
        b"ffffffffffffffff\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"a" * 2000,
        (b"1;" + b"a" * 1000 + b"\r\nx\r\n") * 20,
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\n" + b"A: bcdefgh\r\n" * 2000 + b"\r\n",
    ],
)
def test_bad_chunks_are_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Chunks().feed(body)


tokens = st.text("abcXYZ-_.!", min_size=1, max_size=8).map(str.encode)
texts = st.text('abc XYZ:;,=/\t"', max_size=12).map(lambda text: text.strip().encode())


@given(tokens, st.lists(st.tuples(tokens, texts), max_size=8))
def test_what_h11_reads_is_read_alike(method: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    lines = b"".join(b"%s: %s\r\n" % field for field in fields)
    text = b"%s /path HTTP/1.1\r\nHost: a\r\n%s\r\n" % (method, lines)
    theirs = h11.Connection(h11.SERVER)
    theirs.receive_data(text)
    event = theirs.next_event()
    assert isinstance(event, h11.Request)
    ours = request(text)
    assert ours.method == event.method
    assert [(name.lower(), value) for name, value in ours.fields] == list(event.headers)


@given(st.binary(max_size=200))
def test_nothing_but_our_error(data: bytes) -> None:
    for parse in (parse_request_head, parse_response_head):
        for text in (data, b"GET / HTTP/1.1\r\n" + data + b"\r\n\r\n"):
            try:
                parse(text)
            except RemoteProtocolError as error:
                assert error.status in (400, 431, 502, 505)
    try:
        Chunks().feed(data)
    except RemoteProtocolError as error:
        assert error.status == 400


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\r\n\r\n"])
def test_who_speaks_no_http_is_refused_as_soon_as_it_is_known(before: bytes) -> None:
    """By the same byte, whatever empty lines come first."""
    longest = before + b"M" * 64
    assert parse_request_head(longest) is NEED_MORE
    for after in (b"M", b"M / HTTP/1.1\r\n\r\n"):
        with pytest.raises(RemoteProtocolError, match="no HTTP request"):
            parse_request_head(longest + after)
    found = parse_request_head(longest + b" / HTTP/1.1\r\n\r\n")
    assert isinstance(found, Parsed)
