"""Racing addresses: who wins, when the next one starts, and what is left of the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qanat.stack.address import Address
from qanat.stack.connect.happy_eyeballs import HappyEyeballs
from qanat.stack.connect.target import ConnectTo
from qanat.stack.errors import ConnectError
from qanat.stack.stream.base import Stream
from qanat.stack.stream.memory import MemoryStream, memory_pipe
from tests.stack.conftest import Run
from tests.support.wait import wait_until_async

__all__: list[str] = []

TARGET = Address("a.example", 80)
FIRST, SECOND, THIRD = (Address(f"192.0.2.{number}", 80) for number in (1, 2, 3))
AT_ONCE = 0.001
NEVER = 60.0


class Net:
    """A connector whose addresses answer as a test says: ``refused``, ``silent``, ``stubborn``
    (connects although it was cancelled), or by connecting."""

    def __init__(self, **ways: str) -> None:
        self.ways = {Address(f"192.0.2.{key[1:]}", 80): way for key, way in ways.items()}
        self.tried: list[Address] = []
        self.cancelled: list[Address] = []
        self.made: dict[Address, MemoryStream] = {}

    async def __call__(self, asked: ConnectTo) -> Stream:
        assert asked.candidates is not None
        (to,) = asked.candidates
        self.tried.append(to)
        way = self.ways.get(to, "open")
        if way == "refused":
            raise ConnectError(f"{to}: refused", kind="refused")
        if way == "mistake":
            raise RuntimeError("a mistake")
        if way in ("silent", "stubborn"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.append(to)
                if way == "silent":
                    raise
        stream, other = memory_pipe()
        self.made[to] = other
        return stream


def race(run: Run[Any], net: Net, delay: float, *candidates: Address, most: int = 16) -> Any:
    async def of_loop() -> Any:
        connector = HappyEyeballs(delay, most)(net)
        try:
            return await connector(ConnectTo(TARGET, candidates=candidates))
        except ConnectError as error:
            return error

    return run(of_loop())


def test_the_first_is_enough(run: Run[Any]) -> None:
    net = Net()
    assert isinstance(race(run, net, NEVER, FIRST, SECOND), Stream)
    assert net.tried == [FIRST]


def test_a_failure_starts_the_next_at_once(run: Run[Any]) -> None:
    net = Net(a1="refused", a2="refused")
    assert isinstance(race(run, net, NEVER, FIRST, SECOND, THIRD), Stream)
    assert net.tried == [FIRST, SECOND, THIRD]


def test_a_silent_one_is_overtaken_and_given_up(run: Run[Any]) -> None:
    net = Net(a1="silent")
    assert isinstance(race(run, net, AT_ONCE, FIRST, SECOND), Stream)
    assert net.cancelled == [FIRST]


def test_who_connects_too_late_is_ended(run: Run[Any]) -> None:
    net = Net(a1="stubborn")
    assert isinstance(race(run, net, AT_ONCE, FIRST, SECOND), Stream)
    assert net.made[FIRST]._in.reset


def test_all_fail(run: Run[Any]) -> None:
    net = Net(a1="refused", a2="refused", a3="refused")
    error = race(run, net, AT_ONCE, FIRST, SECOND, THIRD)
    assert error.kind == "refused"
    assert len(error.attempts) == 3


def test_not_more_than_told(run: Run[Any]) -> None:
    net = Net(a1="refused", a2="refused")
    assert race(run, net, NEVER, FIRST, SECOND, THIRD, most=2).kind == "refused"
    assert net.tried == [FIRST, SECOND]


def test_a_mistake_is_not_hidden(run: Run[Any]) -> None:
    net = Net(a1="silent", a2="mistake")
    with pytest.raises(RuntimeError, match="a mistake"):
        race(run, net, AT_ONCE, FIRST, SECOND)
    assert net.cancelled == [FIRST]


def test_one_candidate_is_no_race(run: Run[Any]) -> None:
    net = Net()
    assert isinstance(race(run, net, NEVER, FIRST), Stream)


def test_cancelled(run: Run[Any]) -> None:
    net = Net(a1="silent", a2="silent")

    async def exchange() -> None:
        connector = HappyEyeballs(AT_ONCE)(net)

        async def dial() -> Stream:
            return await connector(ConnectTo(TARGET, candidates=(FIRST, SECOND)))

        task = asyncio.get_running_loop().create_task(dial())
        await wait_until_async(lambda: len(net.tried) == 2)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert sorted(map(str, net.cancelled)) == [str(FIRST), str(SECOND)]

    run(exchange())
