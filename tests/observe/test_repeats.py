"""What is said, what is counted, and when the count is told."""

from __future__ import annotations

from qanat.observe.repeats import Repeats, Withheld


def test_a_burst_passes_and_the_rest_is_counted() -> None:
    repeats: Repeats[str] = Repeats(burst=3, window=10)
    said = [repeats.admit("kind", f"m{n}", now=float(n)) for n in range(8)]
    assert said == [True] * 3 + [False] * 5
    assert repeats.due(9.0) == []
    assert repeats.due(10.0) == [Withheld(5, "m7")]
    assert repeats.due(10.0) == []


def test_kinds_do_not_disturb_each_other() -> None:
    repeats: Repeats[str] = Repeats(burst=1, window=10)
    assert repeats.admit("a", "", 0)
    assert repeats.admit("b", "", 0)
    assert not repeats.admit("a", "", 1)


def test_what_goes_on_is_told_once_a_window() -> None:
    repeats: Repeats[int] = Repeats(burst=2, window=10)
    said = 0
    told = []
    for tenth in range(1000):
        now = tenth / 10
        said += repeats.admit("kind", tenth, now)
        told += repeats.due(now)
    assert said == 2
    assert len(told) == 9
    told += repeats.due(1000)
    assert said + sum(withheld.count for withheld in told) == 1000


def test_after_a_quiet_window_the_burst_is_whole_again() -> None:
    repeats: Repeats[int] = Repeats(burst=2, window=10)
    assert [repeats.admit("kind", 0, 0) for _ in range(3)] == [True, True, False]
    repeats.due(10)
    repeats.due(20)
    assert [repeats.admit("kind", 0, 21) for _ in range(3)] == [True, True, False]


def test_at_the_end_all_counts_are_told() -> None:
    repeats: Repeats[int] = Repeats(burst=1, window=10)
    repeats.admit("kind", 1, 0)
    repeats.admit("kind", 2, 0)
    assert repeats.due(0, all_of_them=True) == [Withheld(1, 2)]


def test_memory_is_bounded() -> None:
    repeats: Repeats[int] = Repeats()
    for kind in range(5000):
        repeats.admit(kind, 0, 0)
    assert repeats.admit(0, 0, 0), "the oldest kinds were forgotten"
    assert len(repeats._windows) == Repeats.KINDS
