from __future__ import annotations

import asyncio
import threading

import pytest

from qanat.observe.flow import Flow
from qanat.relay.ended import EndedFlows


def flows(*ids: int) -> list[Flow]:
    return [Flow.from_record({"id": id, "reason": "killed"}) for id in ids]


async def rest(iterator: EndedFlows) -> list[int]:
    return [flow.id async for flow in iterator]


def test_records_come_in_order_and_the_end_after_the_last() -> None:
    iterator = EndedFlows(10)
    iterator.add(flows(1, 2))
    iterator.add(flows(3))
    iterator.close()
    iterator.add(flows(4))
    assert asyncio.run(rest(iterator)) == [1, 2, 3]
    assert asyncio.run(rest(iterator)) == []


def test_the_oldest_go_when_a_consumer_is_slow_and_are_counted() -> None:
    iterator = EndedFlows(2)
    iterator.add(flows(1, 2, 3))
    iterator.add(flows(4))
    iterator.miss(10)
    iterator.close()
    assert asyncio.run(rest(iterator)) == [3, 4]
    assert iterator.lost == 12


def test_a_waiting_consumer_is_woken_from_another_thread() -> None:
    iterator = EndedFlows(10)

    async def consume() -> list[int]:
        consumer = asyncio.ensure_future(rest(iterator))
        await asyncio.sleep(0)

        def add() -> None:
            iterator.add(flows(1))
            iterator.close()

        adding = threading.Thread(target=add)
        adding.start()
        found = await consumer
        adding.join()
        return found

    assert asyncio.run(consume()) == [1]


def test_being_cancelled_loses_nothing() -> None:
    iterator = EndedFlows(10)

    async def consume() -> int:
        waiting = asyncio.ensure_future(anext(iterator))
        await asyncio.sleep(0)
        iterator.add(flows(1))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return (await anext(iterator)).id

    assert asyncio.run(consume()) == 1


def test_one_iterator_may_be_used_in_one_loop_after_the_other() -> None:
    iterator = EndedFlows(10)

    async def one() -> int:
        waiting = asyncio.ensure_future(anext(iterator))
        await asyncio.sleep(0)
        iterator.add(flows(7))
        return (await waiting).id

    assert asyncio.run(one()) == 7
    assert asyncio.run(one()) == 7


def test_a_loop_that_was_closed_while_its_task_waited_does_no_harm() -> None:
    iterator = EndedFlows(10)
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(anext(iterator))
    loop.call_soon(loop.stop)
    loop.run_forever()
    waiting.cancel()
    loop.close()
    iterator.add(flows(1))
    assert iterator.lost == 0
    del waiting


def test_two_tasks_can_not_wait_at_once() -> None:
    iterator = EndedFlows(10)

    async def consume() -> None:
        first = asyncio.ensure_future(anext(iterator))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(iterator)
        iterator.add(flows(1))
        assert (await first).id == 1

    asyncio.run(consume())


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        EndedFlows(0)
