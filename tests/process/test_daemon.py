"""Detaching, the pid file, and the limit of descriptors; in processes of their own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from qanat.errors import QanatError
from qanat.process.daemon import PidFile
from tests.support.wait import wait_until


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_the_caller_ends_when_the_daemon_is_ready(tmp_path: Path) -> None:
    report = tmp_path / "report"
    done = python(
        """
        import os, sys
        from qanat.process.daemon import detach
        caller = os.getpid()
        daemon = detach()
        print("still speaking to the caller", flush=True)
        daemon.ready()
        print("into the void", flush=True)
        with open(sys.argv[1] + ".tmp", "w") as file:
            os.umask(mask := os.umask(0))
            terminal = os.readlink("/proc/self/fd/1")
            print(os.getpid() != caller, os.getsid(0) != os.getpid(), mask, terminal, file=file)
        os.rename(sys.argv[1] + ".tmp", sys.argv[1])
        """,
        str(report),
    )
    assert (done.returncode, done.stdout) == (0, "still speaking to the caller\n"), done.stderr
    wait_until(report.exists)
    assert report.read_text() == "True True 18 /dev/null\n"


def test_the_caller_tells_of_a_daemon_that_could_not_start() -> None:
    done = python(
        """
        import sys
        from qanat.process.daemon import detach
        detach()
        sys.exit("can't: no legs")
        """
    )
    assert done.returncode == 1
    assert "no legs" in done.stderr


def test_the_caller_waits_for_the_daemon() -> None:
    began = time.monotonic()
    done = python(
        """
        import time
        from qanat.process.daemon import detach
        daemon = detach()
        time.sleep(0.5)
        daemon.ready()
        """
    )
    assert done.returncode == 0
    assert time.monotonic() - began > 0.5


def test_a_pid_file_keeps_a_second_one_out(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    first = PidFile(path)
    assert path.read_text() == f"{os.getpid()}\n"
    with pytest.raises(QanatError, match=f"process {os.getpid()} is running"):
        PidFile(path)
    first.remove()
    assert not path.exists()


def test_a_leftover_pid_file_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("123456789\n")
    PidFile(path).remove()
    assert not path.exists()


def test_a_pid_file_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(QanatError, match="No such file or directory"):
        PidFile(tmp_path / "missing" / "pid")


@pytest.mark.parametrize(("wanted", "expected"), [(None, "64 64"), (40, "40 40")])
def test_the_limit_of_descriptors(wanted: int | None, expected: str) -> None:
    done = python(
        f"""
        import resource
        from qanat.process.daemon import raise_descriptor_limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 64))
        print(*raise_descriptor_limit({wanted}))
        """
    )
    assert done.stdout.strip() == expected, done.stderr


def test_more_descriptors_than_allowed_gives_what_is_allowed() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    done = python(
        """
        import os, resource
        from qanat.process.daemon import raise_descriptor_limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 64))
        if os.geteuid() == 0:
            os.setuid(65534)
        print(*raise_descriptor_limit(1 << 40))
        """
    )
    assert done.stdout.strip() == "64 64", (done.stderr, hard)
