import os
import subprocess
import sys
import time

import pytest

from benchmarks import measure

_STAT = (
    "71 (a) (b c) S 70 71 71 0 -1 4194560 9 8 7 6 250 150 30 20 20 0 1 0 5 1000 50 "
    "18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)


def test_stat_of_a_process_with_parentheses_in_its_name() -> None:
    tick = 1 / os.sysconf("SC_CLK_TCK")
    stat = measure.parse_stat(_STAT)
    assert stat.parent == 70
    assert stat.own == pytest.approx(400 * tick)
    assert stat.reaped == pytest.approx(50 * tick)


def test_pss_line() -> None:
    text = "00400000-7ff ---p 00000000 00:00 0 [rollup]\nRss: 9 kB\nPss: 7 kB\nPss_Anon: 3 kB\n"
    assert measure.parse_pss(text) == 7 * 1024
    with pytest.raises(ValueError, match="Pss"):
        measure.parse_pss("Rss: 9 kB\n")


def test_own_process_is_measured() -> None:
    before = measure.cpu_seconds(os.getpid())
    own = os.times()
    total = sum(number * number for number in range(2_000_000))
    assert total
    spent = os.times()
    expected = (spent.user + spent.system) - (own.user + own.system)
    assert measure.cpu_seconds(os.getpid()) - before == pytest.approx(expected, abs=0.03)
    assert measure.pss_bytes(os.getpid()) > 2**20
    assert measure.descriptors(os.getpid()) >= 3
    assert measure.threads(os.getpid()) >= 1


def test_children_count_while_they_live_and_when_they_were_reaped() -> None:
    script = (
        "import subprocess, sys\n"
        "child = 'sum(range(6_000_000)); print(1, flush=True); input()'\n"
        "with subprocess.Popen([sys.executable, '-c', child], stdin=subprocess.PIPE) as process:\n"
        "    input()\n"
        "    process.communicate(b'go\\n')\n"
        "print(2, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        assert len(measure.tree(process.pid)) == 2
        alive = measure.cpu_seconds(process.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        process.stdout.readline()
        assert measure.tree(process.pid) == [process.pid]
        # A reaped child's time is known to the tick only, once for user and once for system.
        assert measure.cpu_seconds(process.pid) >= alive - 0.021
        process.communicate("go\n")


def test_rounds_are_interleaved_and_nobody_is_always_first() -> None:
    order = list(measure.interleaved(["a", "b", "c"], 3))
    assert order == [
        (0, "a"), (0, "b"), (0, "c"),
        (1, "b"), (1, "c"), (1, "a"),
        (2, "c"), (2, "a"), (2, "b"),
    ]  # fmt: skip
    assert list(measure.interleaved([], 2)) == []


def test_ratio_is_taken_within_rounds() -> None:
    # The machine was three times slower in the second round: the ratio was 2 all the time.
    assert measure.paired_ratio([2, 6, 2], [1, 3, 1]) == 2
    assert measure.paired_ratio([2, 6], [1, 1, 1]) == 4
    assert measure.paired_ratio([1], [0]) == float("inf")


def test_spread() -> None:
    assert measure.spread([9, 10, 12]) == pytest.approx(0.15)
    assert measure.spread([0, 0]) == 0


def test_busy_seconds_of_all_processors() -> None:
    tick = 1 / os.sysconf("SC_CLK_TCK")
    text = "cpu  100 20 30 9000 7 6 5 4 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
    assert measure.parse_busy(text) == pytest.approx(161 * tick)


def test_own_work_is_not_that_of_bystanders() -> None:
    bystanders = measure.Bystanders()
    spin = "import time\nwhile time.process_time() < 0.4: pass"
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", spin], check=True)
    seconds = (time.perf_counter() - started) * (os.cpu_count() or 1)
    # Whatever others do at the same time, they can't have done what our child did.
    assert 0 <= bystanders.share() <= 1 - 0.35 / seconds
