"""The ClientHello: what it asks for, however it comes, and what is none."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as some

from qanat.stack.codec.client_hello import LONGEST_HELLO, ClientHello, parse_client_hello
from qanat.stack.codec.verdict import NEED_MORE, NeedMore
from qanat.stack.errors import RemoteProtocolError
from tests.support.hellos import in_records, made_hello, real_hello
from tests.support.splits import one_at_a_time, survives

__all__: list[str] = []


def read(data: bytes) -> ClientHello:
    found = parse_client_hello(data)
    assert not isinstance(found, NeedMore)
    assert found.size <= len(data)
    return found.value


def test_what_pythons_client_says() -> None:
    hello = read(real_hello("WWW.Example.com", ("h2", "http/1.1")))
    assert hello.server_name == "www.example.com"
    assert hello.alpn == ("h2", "http/1.1")
    assert 0x0304 in hello.versions
    assert 0x1301 in hello.ciphers
    assert not hello.encrypted
    assert read(real_hello(None)).server_name is None
    # The standard library sends no name for an address.
    assert read(real_hello("192.0.2.1")).server_name is None


@given(
    some.integers(1, 400),
    some.one_of(some.none(), some.from_regex(r"[a-z]{1,20}(\.[a-z]{1,20}){0,3}", fullmatch=True)),
    some.lists(some.binary(min_size=1, max_size=20), max_size=3).map(tuple),
    some.binary(max_size=30),
)
def test_any_cut_into_records_and_reads_says_the_same(
    size: int, name: str | None, alpn: tuple[bytes, ...], after: bytes
) -> None:
    raw = in_records(
        made_hello(name=name.encode() if name else None, alpn=alpn, padding=200, encrypted=True),
        size,
    )
    found = one_at_a_time(parse_client_hello, raw)
    assert found.value.server_name == name
    assert found.value.alpn == tuple(one.decode("latin-1") for one in alpn)
    assert found.value.encrypted
    assert found.size == len(raw)
    assert parse_client_hello(raw + after) == found


def test_a_hello_as_long_as_there_may_be_one() -> None:
    hello = made_hello(name=b"long.example", padding=60_000)
    assert read(in_records(hello)).server_name == "long.example"
    assert read(in_records(hello, 16_000)).server_name == "long.example"
    longer = in_records(made_hello(padding=65_400), 200)[:LONGEST_HELLO]
    for whole in (in_records(b"\1\xff\xff\xff" + bytes(100)), longer):
        with pytest.raises(RemoteProtocolError, match="more than 65536"):
            parse_client_hello(whole)


def test_as_many_records_as_there_may_be() -> None:
    hello = made_hello(name=b"cut.example", padding=200)
    hello = made_hello(name=b"cut.example", padding=200 + 1024 - len(hello))
    assert read(in_records(hello, 1)).server_name == "cut.example"
    more = in_records(made_hello(padding=2000), 1)
    assert parse_client_hello(more[: 1024 * 6 - 1]) is NEED_MORE
    with pytest.raises(RemoteProtocolError, match="more than 1024 records"):
        parse_client_hello(more[: 1024 * 6])


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (b"Example.COM.", "example.com"),
        (b"192.0.2.1", None),
        (b"2001-db8.example", "2001-db8.example"),
    ],
)
def test_names_are_compared_in_one_form(name: bytes, meant: str | None) -> None:
    assert read(in_records(made_hello(name=name))).server_name == meant


@pytest.mark.parametrize("name", [b"", b"a b", b"a\0b", "ä.example".encode("latin-1"), b"."])
def test_what_is_no_name(name: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_client_hello(in_records(made_hello(name=name)))


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x15\3\1",
        b"\x16\2",
        b"\x16\3\1\0\0",
        b"\x16\3\1\x40\x01",
        in_records(b"\2\0\0\0"),
        in_records(b"\1\0\0\1x"),
        in_records(made_hello(more=b"\0\x10\xff\xff")),
        in_records(made_hello(name=b"a.example", more=b"\0\0\0\0")),
    ],
)
def test_what_is_no_hello(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_client_hello(raw)


@given(some.binary(max_size=300))
def test_other_bytes(raw: bytes) -> None:
    survives(parse_client_hello, raw, LONGEST_HELLO)
    survives(parse_client_hello, b"\x16\3\1" + raw, LONGEST_HELLO)
    survives(parse_client_hello, in_records(b"\1\0\0" + bytes((len(raw) & 255,)) + raw), 1000)


def codes(text: str) -> tuple[int, ...]:
    return tuple(int(code, 16) for code in text.split())


def test_the_fingerprint() -> None:
    """The example that those who invented it publish, with values that mean nothing added."""
    browser = ClientHello(
        server_name="x.example",
        alpn=("h2", "http/1.1"),
        versions=codes("2a2a 0304 0303"),
        ciphers=codes(
            "0a0a 1301 1302 1303 c02b c02f c02c c030 cca9 cca8 c013 c014 009c 009d 002f 0035"
        ),
        extensions=codes(
            "4a4a 0000 0017 ff01 000a 000b 0023 0010 0005 000d 0012 0033 002d 002b 001b 4469 0015"
        ),
        signatures=codes("0403 0804 0401 0503 0805 0501 0806 0601"),
        encrypted=False,
    )
    assert browser.ja4 == "t13d1516h2_8daaf6152771_e5627efa2ab1"
    bare = ClientHello(None, (), (0x0303,), (), (), (), False)
    assert bare.ja4 == "t12i000000_000000000000_000000000000"
    odd = ClientHello(None, ("\xab\xcd",), (0x0301,), (), (0x10,), (), False)
    assert odd.ja4 == "t10i0001ad_000000000000_000000000000"


def test_less_than_a_record_is_too_little() -> None:
    assert parse_client_hello(b"") is NEED_MORE
    assert parse_client_hello(b"\x16") is NEED_MORE
    assert ssl.HAS_TLSv1_3
