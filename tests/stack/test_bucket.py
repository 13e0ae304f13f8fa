"""The token bucket, by a clock of our own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.stack.bucket import Bucket

__all__: list[str] = []


def test_it_begins_full_and_fills_up_again() -> None:
    bucket = Bucket(10, 5, 100.0)
    assert bucket.is_full(100.0)
    assert bucket.take(5, 100.0)
    assert not bucket.take(1, 100.0)
    assert bucket.seconds_until(1, 100.0) == pytest.approx(0.1)
    assert bucket.take(1, 100.2)
    assert not bucket.is_full(100.2)
    assert bucket.is_full(1000.0)
    assert bucket.level(1000.0) == 5


def test_debts_are_paid_by_waiting() -> None:
    bucket = Bucket(10, 5, 0.0)
    assert bucket.owe(5, 0.0) == 0
    assert bucket.owe(20, 0.0) == pytest.approx(2.0)
    assert bucket.level(2.0) == pytest.approx(0.0)
    assert bucket.owe(0, 2.0) == pytest.approx(0.0)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(10, 5, 100.0)
    assert bucket.take(5, 100.0)
    assert bucket.level(50.0) == 0
    assert bucket.level(100.1) == pytest.approx(1.0)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (1, 0), (-1, 1), (float("nan"), 1)])
def test_what_is_no_bucket(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Bucket(rate, burst, 0.0)


@given(
    st.floats(0.1, 1000),
    st.floats(1, 1000),
    st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 100)), max_size=50),
)
def test_never_more_than_the_burst_and_the_rate(
    rate: float, burst: float, asked: list[tuple[float, float]]
) -> None:
    bucket, now, taken = Bucket(rate, burst, 0.0), 0.0, 0.0
    for pause, amount in asked:
        now += pause
        if bucket.take(amount, now):
            taken += amount
        assert bucket.level(now) <= burst
    assert taken <= (burst + rate * now) * (1 + 1e-9)
