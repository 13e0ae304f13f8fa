"""Numbers as people read them."""

from __future__ import annotations

import pytest

from qanat.cli.quantities import bytes_text, rate_text, seconds_text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (2**80, "1048576.0 EiB"),
    ],
)
def test_bytes(number: int, text: str) -> None:
    assert bytes_text(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0.00s"),
        (0.254, "0.25s"),
        (59.94, "59.9s"),
        (59.96, "1m00s"),
        (724, "12m04s"),
        (3599.9, "1h00m"),
        (11220, "3h07m"),
        (190_800, "2d05h"),
    ],
)
def test_seconds(number: float, text: str) -> None:
    assert seconds_text(number) == text


def test_what_stands_still_has_a_dot_for_a_rate() -> None:
    assert rate_text(0.4) == "."
    assert rate_text(2048) == "2.0 KiB/s"
