from __future__ import annotations

import threading
from typing import Any

import pytest

from qanat import engine
from qanat.engine import Group, open_group
from qanat.errors import BindError, ConfigError, EngineClosed, QanatError
from qanat.plan import EndpointPlan, LimitsPlan, RemotePlan
from tests.relay.fake_engine import FakeEngine, FakeEngineError, FakeModule
from tests.support.wait import wait_until

PLAN = EndpointPlan(id="x", listen="127.0.0.1:0", remotes=(RemotePlan(host="h", port=1),))


class Heard:
    """A sink that keeps what it was given."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, events: list[dict[str, Any]]) -> None:
        self.events += events


def event_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "qanat-events"]


def test_groups_share_one_engine_which_ends_with_the_last(fake: FakeModule) -> None:
    first = open_group(LimitsPlan(connections=1), Heard())
    second = open_group(LimitsPlan(), Heard())
    (made,) = fake.made
    assert made.limits[first.id]["connections"] == 1
    assert len(event_threads()) == 1
    first.leave()
    assert not made.ended
    assert list(made.limits) == [second.id]
    second.leave()
    assert made.ended
    assert not event_threads()


def test_after_the_last_a_new_engine_is_made(fake: FakeModule) -> None:
    open_group(LimitsPlan(), Heard()).leave()
    open_group(LimitsPlan(), Heard()).leave()
    assert [made.ended for made in fake.made] == [True, True]


def test_the_first_wish_for_workers_counts_and_others_are_warned(fake: FakeModule) -> None:
    first = open_group(LimitsPlan(), Heard(), workers=3, pipe_size=4096)
    assert (fake.made[0].workers, fake.made[0].pipe_size) == (3, 4096)
    open_group(LimitsPlan(), Heard(), workers=3, pipe_size=4096).leave()
    open_group(LimitsPlan(), Heard()).leave()
    with pytest.warns(RuntimeWarning, match="already runs, with 3 workers"):
        open_group(LimitsPlan(), Heard(), workers=4).leave()
    with pytest.warns(RuntimeWarning, match="pipe size of 4096"):
        open_group(LimitsPlan(), Heard(), pipe_size=8192).leave()
    first.leave()


def test_events_go_to_the_group_they_concern(fake: FakeModule) -> None:
    first_heard, second_heard = Heard(), Heard()
    first = open_group(LimitsPlan(), first_heard)
    second = open_group(LimitsPlan(), second_heard)
    for group in (second.id, first.id, 99, second.id):
        fake.made[0].happen({"kind": "notice", "group": group})
    wait_until(lambda: len(second_heard.events) == 2)
    assert len(first_heard.events) == 1
    first.leave()
    second.leave()


def test_a_sink_that_raises_is_logged_and_the_next_event_still_comes(
    fake: FakeModule, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()

    def sink(events: list[dict[str, Any]]) -> None:
        heard(events)
        raise ValueError("broken")

    group = open_group(LimitsPlan(), sink)
    fake.made[0].happen({"group": group.id})
    fake.made[0].happen({"group": group.id})
    wait_until(lambda: len(heard.events) == 2)
    group.leave()
    assert "broken" in caplog.text


def test_flushing_waits_until_everything_was_handed_on(fake: FakeModule) -> None:
    heard = Heard()
    going_on = threading.Event()

    def slow(events: list[dict[str, Any]]) -> None:
        going_on.wait(5)
        heard(events)

    group = open_group(LimitsPlan(), slow)
    for _ in range(50):
        fake.made[0].happen({"group": group.id})
    threading.Timer(0.05, going_on.set).start()
    group.flush_events(timeout=5)
    assert len(heard.events) == 50
    group.leave()


def test_a_group_may_leave_from_within_its_own_events(fake: FakeModule) -> None:
    left = threading.Event()
    group: Group

    def sink(_: list[dict[str, Any]]) -> None:
        group.flush_events(timeout=5)
        group.leave()
        left.set()

    group = open_group(LimitsPlan(), sink)
    fake.made[0].happen({"group": group.id})
    assert left.wait(5)
    wait_until(lambda: not event_threads())


def test_an_abandoned_group_is_closed_and_the_idle_engine_ends(
    fake: FakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_FETCH_SECONDS", 0.01)
    group = open_group(LimitsPlan(), Heard())
    with engine._lock:  # as the garbage collector may come at any moment
        assert group.abandon()
    assert not group.abandon()
    assert fake.made[0].limits == {}
    wait_until(lambda: fake.made[0].ended)


def test_a_group_that_left_is_not_abandoned_too(fake: FakeModule) -> None:
    group = open_group(LimitsPlan(), Heard())
    group.leave()
    group.leave()
    assert not group.abandon()
    with pytest.raises(EngineClosed, match="was stopped"):
        group.flows()


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (
            FakeEngineError("can't listen on tcp 127.0.0.1:0: in use (98)", "bind", 98),
            BindError,
            "endpoint x: can't listen on 127.0.0.1:0: Address already in use (TCP)",
        ),
        (
            FakeEngineError("no such device", "bind"),
            BindError,
            "endpoint x: can't listen on 127.0.0.1:0: no such device",
        ),
        (FakeEngineError("no such field", "plan"), ConfigError, "endpoint x: no such field"),
        (FakeEngineError("the engine is closed", "closed"), EngineClosed, "the engine is closed"),
        (FakeEngineError("odd", "odd"), QanatError, "odd"),
    ],
)
def test_errors_of_the_engine_become_ours(
    fake: FakeModule, error: FakeEngineError, expected: type[QanatError], text: str
) -> None:
    group = open_group(LimitsPlan(), Heard())
    fake.made[0].refuse = lambda _call, _plan: error
    with pytest.raises(expected) as caught:
        group.bind(PLAN)
    group.leave()
    assert type(caught.value) is expected
    assert str(caught.value) == text
    assert caught.value.__cause__ is error
    assert caught.value.code == ("config" if error.code == "plan" else error.code)


def test_an_engine_that_can_not_open_a_group_is_not_left_running(
    fake: FakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise FakeEngineError("no", "odd")

    monkeypatch.setattr(FakeEngine, "open_group", fail)
    with pytest.raises(QanatError, match="no"):
        open_group(LimitsPlan(), Heard())
    assert fake.made[0].ended
    assert not event_threads()
