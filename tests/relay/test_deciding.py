from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qanat.relay import deciding
from qanat.relay.arrival import Arrival, Refuse
from qanat.relay.deciding import Deciding, answer_of
from qanat.relay.hooks import Hook
from tests.support.wait import wait_until


class Engine:
    """Asks and keeps the answers, by flow."""

    def __init__(self) -> None:
        self.bell = os.eventfd(0, os.EFD_NONBLOCK)
        self.waiting: list[str] = []
        self.answers: dict[int, dict[str, Any]] = {}
        self.batches: list[int] = []
        self.deciding = Deciding(self.bell, self.take, self.give)

    def take(self) -> list[str]:
        os.eventfd_read(self.bell)
        batch, self.waiting = self.waiting, []
        return batch

    def give(self, answers: str) -> None:
        read = json.loads(answers)
        self.batches.append(len(read))
        for answer in read:
            self.answers[answer.pop("id")] = answer

    def ask(self, *flows: int, call: str = "m:f", group: int = 1, **facts: Any) -> None:
        self.waiting += [
            json.dumps(
                {
                    "id": flow,
                    "group": group,
                    "endpoint": "e",
                    "call": call,
                    "remotes": ["a:1", "b:2"],
                    "client": "192.0.2.1:4000",
                    "via": None,
                    "listener": "127.0.0.1:80",
                    "timeout": 10.0,
                    "first_bytes": "",
                }
                | facts
            )
            for flow in flows
        ]
        os.eventfd_write(self.bell, 1)

    def answer(self, flow: int) -> dict[str, Any]:
        wait_until(lambda: flow in self.answers)
        return self.answers[flow]

    def hook(self, function: Callable[[Arrival], Any], call: str = "m:f") -> Hook:
        hook = Hook(call, function, asyncio.iscoroutinefunction(function))
        self.deciding.set(1, {call: hook})
        return hook


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.deciding.close()
    wait_until(lambda: not any(each.name == "qanat-hooks" for each in threading.enumerate()))
    os.close(engine.bell)


@pytest.mark.parametrize(
    ("decision", "answer"),
    [
        (None, {"answer": "allow"}),
        (True, {"answer": "allow"}),
        (False, {"answer": "refuse", "reason": "refused by the hook"}),
        (Refuse("late"), {"answer": "refuse", "reason": "late"}),
        (0, {"answer": "remote", "index": 0}),
        (1, {"answer": "remote", "index": 1}),
        (2, {"answer": "refuse", "reason": "the hook chose remote 2 of 2"}),
        (-1, {"answer": "refuse", "reason": "the hook chose remote -1 of 2"}),
        ("a:1", {"answer": "failed", "reason": "the hook answered with str, which is no decision"}),
        (1.0, {"answer": "failed", "reason": "the hook answered with float, which is no decision"}),
    ],
)
def test_decisions_in_the_engines_words(decision: object, answer: dict[str, Any]) -> None:
    assert answer_of(decision, 2) == answer


def test_a_plain_function_and_a_coroutine_are_shown_the_same(engine: Engine) -> None:
    seen: list[Arrival] = []
    threads: set[str] = set()

    def note(arrival: Arrival) -> int:
        seen.append(arrival)
        threads.add(threading.current_thread().name)
        return 1

    async def later(arrival: Arrival) -> int:
        await asyncio.sleep(0)
        return note(arrival)

    facts: dict[str, Any] = {
        "first_bytes": "6869",
        "via": "192.0.2.9:1",
        "client": "[2001:db8::1]:4000",
    }
    for flow, function in enumerate((note, later)):
        engine.hook(function)
        engine.ask(flow, **facts)
        assert engine.answer(flow) == {"answer": "remote", "index": 1}
    assert threads == {"qanat-hook-1", "qanat-hooks"}
    assert seen[0] == Arrival(
        flow=0,
        endpoint="e",
        client="[2001:db8::1]:4000",
        via="192.0.2.9:1",
        listener="127.0.0.1:80",
        first_bytes=b"hi",
        remotes=("a:1", "b:2"),
    )
    assert seen[1].first_bytes == b"hi"


def test_nobody_waits_for_a_coroutine_that_waits(engine: Engine) -> None:
    async def decide(arrival: Arrival) -> bool:
        if arrival.flow == 0:
            await asyncio.Event().wait()
        await asyncio.sleep(0.05)
        return True

    engine.hook(decide)
    began = time.monotonic()
    engine.ask(*range(500))
    wait_until(lambda: len(engine.answers) == 499)
    assert time.monotonic() - began < 5, "one after the other it would take 25 s"
    assert max(engine.batches) > 1, "answers go in batches"


def test_a_function_that_blocks_holds_up_no_other_hook(engine: Engine) -> None:
    go = threading.Event()
    blocks = Hook("m:blocks", lambda _: go.wait(20), False)
    quick = Hook("m:quick", lambda _: True, False)
    engine.deciding.set(1, {"m:blocks": blocks, "m:quick": quick})
    engine.ask(*range(50), call="m:blocks")
    engine.ask(100, call="m:quick")
    assert engine.answer(100) == {"answer": "allow"}
    assert len(engine.answers) == 1
    go.set()
    wait_until(lambda: len(engine.answers) == 51)


def test_what_takes_too_long_is_given_up(engine: Engine) -> None:
    cancelled = threading.Event()

    async def forever(_: Arrival) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    engine.hook(forever)
    engine.ask(1, timeout=0.05)
    assert engine.answer(1) == {"answer": "failed", "reason": "the hook took too long"}
    assert cancelled.is_set()


def test_what_waited_too_long_for_a_thread_is_not_asked_any_more(engine: Engine) -> None:
    go = threading.Event()
    called: list[int] = []

    def decide(arrival: Arrival) -> None:
        called.append(arrival.flow)
        go.wait(20)

    engine.hook(decide)
    engine.ask(*range(deciding.MOST_THREADS))
    wait_until(lambda: len(called) == deciding.MOST_THREADS)
    engine.ask(100, timeout=0.0)
    go.set()
    assert engine.answer(100)["answer"] == "failed"
    assert 100 not in called


def test_pending_decisions_are_bounded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "MOST_PENDING", 5)
    release: list[asyncio.Event] = []

    async def decide(_: Arrival) -> None:
        release.append(asyncio.Event())
        await release[-1].wait()

    engine.hook(decide)
    engine.ask(*range(7))
    wait_until(lambda: len(engine.answers) == 2 and len(release) == 5)
    assert engine.answers[6] == {"answer": "failed", "reason": "too many decisions are pending"}
    for event in release:
        engine.deciding._loop.call_soon_threadsafe(event.set)
    wait_until(lambda: len(engine.answers) == 7)
    engine.ask(7)
    wait_until(lambda: len(release) == 6)


def test_exceptions_are_failures_and_logged_at_a_bounded_rate(
    engine: Engine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding, "_QUIET_SECONDS", 3600.0)

    def broken(arrival: Arrival) -> None:
        raise SystemExit(3) if arrival.flow % 2 else LookupError("no table")

    async def timed(_: Arrival) -> None:
        raise TimeoutError("the database")

    async def gone(_: Arrival) -> None:
        raise asyncio.CancelledError

    engine.hook(broken)
    engine.ask(*range(20))
    wait_until(lambda: len(engine.answers) == 20)
    assert engine.answers[0] == {"answer": "failed", "reason": "LookupError: no table"}
    assert engine.answers[1] == {"answer": "failed", "reason": "SystemExit: 3"}
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(logged) == 1
    assert logged[0].getMessage() == "hook m:f failed"
    assert logged[0].exc_info
    engine.hook(timed)
    engine.ask(100)
    assert engine.answer(100)["reason"] == "TimeoutError: the database"
    engine.hook(gone)
    engine.ask(101)
    assert engine.answer(101)["reason"] == "CancelledError: "


def test_questions_that_nobody_answers_for_have_failed(engine: Engine) -> None:
    engine.hook(lambda _: True)
    engine.ask(1, call="m:other")
    engine.ask(2, group=2)
    reason = "there is no such hook any more"
    assert engine.answer(1) == engine.answer(2) == {"answer": "failed", "reason": reason}
    engine.ask(3)
    assert engine.answer(3) == {"answer": "allow"}
    engine.deciding.set(1, {})
    engine.ask(4)
    assert engine.answer(4)["answer"] == "failed"


def test_threads_end_with_the_hook_that_they_were_for(engine: Engine) -> None:
    def names() -> list[str]:
        return [each.name for each in threading.enumerate() if "qanat-hook-" in each.name]

    engine.hook(lambda _: True)
    engine.ask(1)
    engine.answer(1)
    assert names()
    engine.hook(lambda _: True)
    wait_until(lambda: not names())


def test_closing_cancels_what_runs_and_may_be_done_twice() -> None:
    engine = Engine()
    ended = threading.Event()
    began = threading.Event()

    async def forever(_: Arrival) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    engine.hook(forever)
    engine.ask(1, timeout=None)
    assert began.wait(10)
    engine.deciding.close()
    engine.deciding.close()
    assert ended.is_set()
    assert engine.answers == {}
    os.close(engine.bell)
