"""How many a second, and that the table of keys stays small."""

from __future__ import annotations

from typing import Any

import pytest

from qanat.stack.errors import LimitReached
from qanat.stack.layers.limit_rate import LimitRate

__all__: list[str] = []


async def _same(asked: object, /) -> object:
    return asked


def _itself(asked: object) -> Any:
    return asked


def test_a_burst_and_then_a_time_to_come_back(run: Any) -> None:
    async def work() -> None:
        serve: Any = LimitRate(0.001, burst=3)(_same)
        assert [await serve(number) for number in range(3)] == [0, 1, 2]
        with pytest.raises(LimitReached, match=r"more than 0\.001 a second") as caught:
            await serve(3)
        assert caught.value.retry_after is not None
        assert 900 < caught.value.retry_after <= 1000

    run(work())


def test_each_key_has_its_own(run: Any) -> None:
    async def work() -> None:
        serve: Any = LimitRate(0.001, key=_itself)(_same)
        assert [await serve(name) for name in "abc"] == ["a", "b", "c"]
        with pytest.raises(LimitReached):
            await serve("a")

    run(work())


def test_beyond_the_table_new_keys_are_refused_until_old_ones_have_rested(run: Any) -> None:
    async def work() -> None:
        serve: Any = LimitRate(0.001, key=_itself, table=2)(_same)
        await serve("a")
        await serve("b")
        with pytest.raises(LimitReached, match="more than 2 are being counted"):
            await serve("c")
        assert set(serve.buckets) == {"a", "b"}
        serve.buckets["a"].owe(-1, 0)
        assert await serve("c") == "c"
        assert set(serve.buckets) == {"b", "c"}

    run(work())


def test_none_adds_nothing() -> None:
    assert LimitRate(None)(_same) is _same
