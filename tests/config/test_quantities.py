"""Amounts of bytes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.config.quantities import LARGEST, QuantityError, parse_rate, parse_size

__all__: list[str] = []


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("1kB", 1000),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("500 MB", 500_000_000),
        ("10MiB", 10 * 2**20),
        ("10GiB", 10 * 2**30),
        ("1.5 GiB", 3 * 2**29),
        (" 2TB ", 2 * 10**12),
        ("0.001kB", 1),
        (str(LARGEST), LARGEST),
    ],
)
def test_sizes(text: str, amount: int) -> None:
    assert parse_size(text) == amount
    assert parse_rate(text) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("10MiB/s", 10 * 2**20),
        ("10 MB/s", 10_000_000),
        ("100Mbit/s", 12_500_000),
        ("100Mbit", 12_500_000),
        ("1Gbit/s", 125_000_000),
        ("8bit/s", 1),
        ("64kbit/s", 8000),
        ("2.5Gbit/s", 312_500_000),
        ("1000/s", 1000),
    ],
)
def test_rates(text: str, amount: int) -> None:
    assert parse_rate(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MB",
        "-1",
        "1e9",
        "1.MB",
        ".5MB",
        "1 000",
        "1MB/h",
        "1,5MB",
        "1MBps",
        "\u0661MB",
        "1/s/s",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(QuantityError) as caught:
        parse_size(text)
    assert "10GiB" in caught.value.hint or "MB" in caught.value.hint


@pytest.mark.parametrize("text", ["10MiB/s", "100Mbit"])
def test_a_size_is_no_rate_and_has_no_bits(text: str) -> None:
    with pytest.raises(QuantityError):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10M", "MB (thousands), MiB (1024) or Mbit (bits)"),
        ("10Mb/s", "MB (thousands), MiB (1024) or Mbit (bits)"),
        ("10k", "kB (thousands), KiB (1024) or kbit (bits)"),
        ("10g", "GB (thousands), GiB (1024) or Gbit (bits)"),
        ("10x", "as 10MiB/s or 100Mbit/s"),
    ],
)
def test_nothing_is_guessed(text: str, hint: str) -> None:
    with pytest.raises(QuantityError, match="is not a unit") as caught:
        parse_rate(text)
    assert caught.value.hint == hint


def test_bounds() -> None:
    with pytest.raises(QuantityError, match="more than can be counted"):
        parse_size("9000000000TB")
    with pytest.raises(QuantityError, match="less than one byte"):
        parse_rate("1bit/s")


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from(["kB", "MB", "GB"]))
def test_fractions_are_exact(whole: int, thousandths: int, unit: str) -> None:
    factor = {"kB": 10**3, "MB": 10**6, "GB": 10**9}[unit]
    assert (
        parse_size(f"{whole}.{thousandths:03}{unit}")
        == (whole * 1000 + thousandths) * factor // 1000
    )


@given(st.text(st.sampled_from("0123456789.kKMGTiBbits/ ")))
def test_whatever_the_text_an_answer_or_its_error(text: str) -> None:
    for parse in (parse_size, parse_rate):
        try:
            assert 0 <= parse(text) <= LARGEST
        except QuantityError as error:
            assert error.hint
