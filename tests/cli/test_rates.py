"""Speeds between two looks, and the order of flows."""

from __future__ import annotations

import pytest

from qanat.cli.rates import SORTS, Rates, ordered
from tests.support.controlled import flow


def test_a_rate_is_what_moved_since_the_last_look() -> None:
    rates = Rates()
    rates.look([flow(1, bytes_up=100, bytes_down=0)], now=10.0)
    (row,) = rates.look([flow(1, bytes_up=300, bytes_down=50)], now=12.0)
    assert (row.up, row.down, row.rate) == (100.0, 25.0, 125.0)


def test_a_new_flow_counts_from_its_start() -> None:
    rates = Rates()
    (row,) = rates.look([flow(1, bytes_up=100, bytes_down=0, duration=2.0)], now=10.0)
    assert row.up == 50.0
    rows = rates.look(
        [flow(1, bytes_up=100, bytes_down=0), flow(2, bytes_up=30, bytes_down=0, duration=0.5)],
        now=11.0,
    )
    assert [row.up for row in rows] == [0.0, 60.0]


def test_flows_that_ended_are_forgotten() -> None:
    rates = Rates()
    rates.look([flow(1), flow(2)], now=1.0)
    rates.look([flow(2)], now=2.0)
    assert set(rates._seen) == {2}


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("rate", 3),
        ("up", 3),
        ("down", 2),
        ("bytes", 3),
        ("age", 1),
        ("idle", 2),
        ("client", 1),
        ("endpoint", 1),
    ],
)
def test_orders(sort: str, first: int) -> None:
    assert sort in SORTS
    rows = Rates().look(
        [
            flow(2, bytes_up=0, bytes_down=50, duration=1.0, idle=9, client="b", endpoint="b"),
            flow(1, bytes_up=10, bytes_down=9, duration=9.0, idle=1, client="a", endpoint="a"),
            flow(3, bytes_up=90, bytes_down=1, duration=1.0, idle=1, client="c", endpoint="c"),
        ],
        now=0.0,
    )
    assert ordered(rows, sort)[0].flow["id"] == first
    assert ordered(rows, sort, reverse=True)[-1].flow["id"] == first
