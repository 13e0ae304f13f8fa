"""A phase that takes too long, and what passes untouched."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qanat.stack.errors import LocalProtocolError, PhaseTimeout
from qanat.stack.layers.timeout import Timeout

__all__: list[str] = []


async def _forever(_: object, /) -> None:
    await asyncio.Event().wait()


def test_the_phase_is_named(run: Any) -> None:
    with pytest.raises(PhaseTimeout, match=r"connect timed out after 0\.01 s") as caught:
        run(Timeout(0.01, "connect")(_forever)(None))
    assert caught.value.phase == "connect"
    assert caught.value.code == "timeout-connect"


def test_what_is_in_time_passes(run: Any) -> None:
    async def double(asked: int, /) -> int:
        return asked * 2

    assert run(Timeout(10)(double)(21)) == 42


def test_none_adds_nothing() -> None:
    assert Timeout(None)(_forever) is _forever


def test_the_inner_one_keeps_its_name(run: Any) -> None:
    with pytest.raises(PhaseTimeout) as caught:
        run(Timeout(10, "total")(Timeout(0.01, "first byte")(_forever))(None))
    assert caught.value.phase == "first byte"


def test_a_timeout_from_below_is_not_ours(run: Any) -> None:
    async def fails(_: object, /) -> None:
        raise TimeoutError("of something else")

    with pytest.raises(TimeoutError, match="of something else"):
        run(Timeout(10)(fails)(None))


def test_cancelling_is_no_timeout(run: Any) -> None:
    async def work() -> bool:
        task = asyncio.ensure_future(Timeout(10)(_forever)(None))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    assert run(work())


@pytest.mark.parametrize("seconds", [0, -1, -0.5])
def test_no_time_is_a_mistake(seconds: float) -> None:
    with pytest.raises(LocalProtocolError, match="is no time"):
        Timeout(seconds)
