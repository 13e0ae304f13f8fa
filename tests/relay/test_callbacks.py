from __future__ import annotations

import pytest

from qanat.relay.callbacks import Callbacks


def test_all_are_called_in_order_until_they_are_taken_out() -> None:
    said: list[str] = []
    callbacks = Callbacks[str]()
    assert not callbacks
    remove = callbacks.add(lambda item: said.append(f"first {item}"))
    callbacks.add(lambda item: said.append(f"second {item}"))
    callbacks.call(["a"])
    remove()
    remove()
    callbacks.call(["b"])
    assert said == ["first a", "second a", "second b"]
    assert callbacks


def test_one_may_take_itself_out() -> None:
    said: list[int] = []
    callbacks = Callbacks[int]()

    def once(item: int) -> None:
        said.append(item)
        remove()

    remove = callbacks.add(once)
    callbacks.call([1])
    callbacks.call([2])
    assert said == [1]


@pytest.mark.parametrize("failure", [ValueError("mine"), SystemExit(3)], ids=repr)
def test_a_failure_is_logged_and_stops_nobody(
    caplog: pytest.LogCaptureFixture, failure: BaseException
) -> None:
    said: list[int] = []
    callbacks = Callbacks[int]()

    def fail(item: int) -> None:
        raise failure

    callbacks.add(fail)
    callbacks.add(said.append)
    callbacks.call([1, 2])
    assert said == [1, 2]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is failure
    assert "fail" in record.message


def test_a_failure_that_repeats_is_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    callbacks = Callbacks[int]()
    callbacks.add(lambda item: 1 // (item - item))
    now = 100.0
    monkeypatch.setattr("qanat.relay.callbacks.time.monotonic", lambda: now)
    callbacks.call(range(5))
    now += 1.5
    callbacks.call([5])
    assert len(caplog.records) == 2
    assert "4 more failures were not logged" in caplog.records[1].message
