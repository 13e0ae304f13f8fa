from __future__ import annotations

import subprocess
import sys
import threading

from qanat.relay.threads import Threads
from tests.support.wait import wait_until


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("some-")}


def test_threads_begin_when_needed_and_not_too_many() -> None:
    threads = Threads("some", 3)
    assert names() == set()
    go = threading.Event()
    done = []

    def wait() -> None:
        go.wait(10)
        done.append(threading.current_thread().name)

    for _ in range(10):
        threads.run(wait)
    wait_until(lambda: len(names()) == 3)
    go.set()
    wait_until(lambda: len(done) == 10)
    assert set(done) == names() == {"some-1", "some-2", "some-3"}
    threads.close()
    wait_until(lambda: not names())


def test_an_idle_thread_is_used_again() -> None:
    threads = Threads("some", 3)
    for _ in range(20):
        ran = threading.Event()
        threads.run(ran.set)
        assert ran.wait(10)
        wait_until(lambda: threads._idle == threads._begun)
    assert names() == {"some-1"}
    threads.close()
    wait_until(lambda: not names())


def test_what_waits_when_it_is_closed_is_still_run() -> None:
    threads = Threads("some", 1)
    began, go, ended = threading.Event(), threading.Event(), threading.Event()

    def long() -> None:
        began.set()
        go.wait(10)
        ended.set()

    ran = []
    threads.run(long)
    assert began.wait(10)
    threads.run(lambda: ran.append(1))
    threads.close()
    go.set()
    assert ended.wait(10)
    wait_until(lambda: not names())
    assert ran == [1]
    threads.run(lambda: ran.append(2))
    wait_until(lambda: ran == [1, 2] and not names())


def test_a_function_that_hangs_does_not_keep_the_program_from_ending() -> None:
    program = (
        "import threading\n"
        "from qanat.relay.threads import Threads\n"
        "began = threading.Event()\n"
        "threads = Threads('some', 1)\n"
        "threads.run(lambda: (began.set(), threading.Event().wait()))\n"
        "began.wait()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
