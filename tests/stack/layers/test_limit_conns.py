"""How many at once: who is refused, who waits, and that places are given back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qanat.stack.address import Address
from qanat.stack.errors import LimitReached
from qanat.stack.extensions import Extensions
from qanat.stack.facts import Client, Peer
from qanat.stack.layers.limit_conns import LimitConns, by_client

__all__: list[str] = []


class _Door:
    """A service that holds everybody until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside: list[object] = []

    async def __call__(self, asked: object, /) -> object:
        self.inside.append(asked)
        await self.open.wait()
        return asked


async def _turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class _Asked:
    def __init__(self, *facts: object) -> None:
        self.ext = Extensions()
        for fact in facts:
            self.ext.insert(fact)


def test_one_more_is_refused_and_a_place_is_given_back(run: Any) -> None:
    async def work() -> None:
        door = _Door()
        serve: Any = LimitConns(2)(door)
        tasks = [asyncio.ensure_future(serve(number)) for number in range(2)]
        await _turns()
        with pytest.raises(LimitReached, match="2 at once are served already"):
            await serve(2)
        door.open.set()
        assert await asyncio.gather(*tasks) == [0, 1]
        assert await serve(3) == 3
        assert serve.places == {}

    run(work())


def test_those_who_wait_come_in_turn(run: Any) -> None:
    async def work() -> None:
        door = _Door()
        serve: Any = LimitConns(1, wait=10)(door)
        tasks = [asyncio.ensure_future(serve(number)) for number in range(4)]
        await _turns()
        assert door.inside == [0]
        door.open.set()
        await asyncio.gather(*tasks)
        assert door.inside == [0, 1, 2, 3]
        assert serve.places == {}

    run(work())


def test_waiting_ends_and_has_a_bound(run: Any) -> None:
    async def work() -> None:
        door = _Door()
        serve: Any = LimitConns(1, wait=0.01, waiting=1)(door)
        first = asyncio.ensure_future(serve(0))
        await _turns()
        second = asyncio.ensure_future(serve(1))
        await _turns()
        with pytest.raises(LimitReached, match=r"already$"):
            await serve(2)
        with pytest.raises(LimitReached, match=r"for 0\.01 s"):
            await second
        door.open.set()
        await first
        assert serve.places == {}

    run(work())


def test_who_gives_up_leaves_no_hole(run: Any) -> None:
    """Cancelled in the very turn in which the place was given, it goes to the next one."""

    async def work() -> None:
        door = _Door()
        serve: Any = LimitConns(1, wait=10)(door)

        async def leave() -> None:
            await serve(0)
            second.cancel()

        first = asyncio.ensure_future(leave())
        await _turns()
        second, third = (asyncio.ensure_future(serve(number)) for number in (1, 2))
        await _turns()
        door.open.set()
        await asyncio.wait({first, second, third})
        assert second.cancelled()
        assert door.inside == [0, 2]
        assert await third == 2
        assert serve.places == {}

    run(work())


def test_a_failing_service_gives_its_place_back(run: Any) -> None:
    async def fails(_: object, /) -> None:
        raise ValueError("no")

    async def work() -> None:
        serve: Any = LimitConns(1)(fails)
        for _ in range(3):
            with pytest.raises(ValueError, match="no"):
                await serve(0)
        assert serve.places == {}

    run(work())


def test_each_key_has_its_own(run: Any) -> None:
    async def work() -> None:
        door = _Door()
        serve: Any = LimitConns(1, key=by_client)(door)
        one, other = (_Asked(Peer(Address(host, 1))) for host in ("192.0.2.1", "192.0.2.2"))
        tasks = [asyncio.ensure_future(serve(asked)) for asked in (one, other)]
        await _turns()
        with pytest.raises(LimitReached):
            await serve(_Asked(Peer(Address("192.0.2.1", 2))))
        door.open.set()
        await asyncio.gather(*tasks)
        assert serve.places == {}

    run(work())


def test_none_adds_nothing() -> None:
    async def serve(_: object, /) -> None: ...

    assert LimitConns(None)(serve) is serve


def test_who_is_one_client() -> None:
    def key(host: str) -> object:
        return by_client(_Asked(Peer(Address(host, 1))))

    assert key("2001:db8::1") == key("2001:db8::ffff")
    assert key("2001:db8::1") != key("2001:db8:0:1::1")
    assert key("::ffff:192.0.2.1") == key("192.0.2.1")
    told = _Asked(Peer(Address("10.0.0.1", 1)), Client(Address("192.0.2.1", 9)))
    assert by_client(told) == key("192.0.2.1")
    assert by_client(_Asked()) is None
