"""Bytes as text and in hexadecimal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.config.octets import OctetsError, parse_octets

__all__: list[str] = []


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("SSH-", b"SSH-"),
        ("é", "é".encode()),
        ("0x1603", b"\x16\x03"),
        ("0XfF", b"\xff"),
        (" \t\r\n", b" \t\r\n"),
        ("1603", b"1603"),
    ],
)
def test_reads(text: str, octets: bytes) -> None:
    assert parse_octets(text, 100) == octets


@pytest.mark.parametrize("text", ["", "0x", "0x1", "0xgg", "0x16 03", "\ud800"])
def test_refuses(text: str) -> None:
    with pytest.raises(OctetsError) as caught:
        parse_octets(text, 100)
    assert caught.value.hint


def test_there_is_a_most() -> None:
    assert len(parse_octets("x" * 5, 5)) == 5
    with pytest.raises(OctetsError, match="6 bytes are too many"):
        parse_octets("0x" + "00" * 6, 5)


@given(st.binary(min_size=1, max_size=50))
def test_all_bytes_can_be_written(octets: bytes) -> None:
    assert parse_octets(f"0x{octets.hex()}", 50) == octets
