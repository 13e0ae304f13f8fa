"""Builds and runs ``qanat-load``, the generator in ``benchmarks/load``: targets and clients."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.failure import BenchmarkError

__all__ = ["ROOT", "TARGET_ROLES", "binary", "client", "holding", "start_client", "targets"]

ROOT = Path(__file__).resolve().parent.parent
TARGET_ROLES = ("echo", "discard", "source", "udp-echo", "udp-sink")


@cache
def binary() -> Path:
    """Build the generator if needed; cargo decides."""
    command = ["cargo", "build", "--release", "--quiet", "-p", "qanat-load"]
    try:
        subprocess.run(command, cwd=ROOT, check=True)
    except FileNotFoundError:
        raise BenchmarkError("cargo is missing: the load generator needs Rust") from None
    except subprocess.CalledProcessError as error:
        raise BenchmarkError(f"{' '.join(command)} failed ({error.returncode})") from None
    folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return folder / "release" / "qanat-load"


def _words(options: dict[str, object]) -> list[str]:
    words: list[str] = []
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def _line(process: subprocess.Popen[str], what: str) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        code = process.wait()
        raise BenchmarkError(f"{what} ended with {code}: {_error_text(process)}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _error_text(process: subprocess.Popen[str]) -> str:
    return process.stderr.read().strip() if process.stderr is not None else ""


@contextmanager
def _running(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The generator's processes end when their stdin closes; whatever happens, none is left."""
    with subprocess.Popen(
        [str(binary()), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def targets(*roles: str, **options: object) -> Iterator[dict[str, str]]:
    """A process that serves these roles on loopback; the address of each."""
    words = ["serve", *_words(dict.fromkeys(roles, "127.0.0.1:0")), *_words(options)]
    with _running(words) as process:
        ready = _line(process, "qanat-load serve")
        yield {role: str(ready[role]) for role in roles}


@contextmanager
def holding(address: str, connections: int) -> Iterator[None]:
    """So many open connections that were used once and now rest; all are used again at the end."""
    with _running(["idle", address, "--connections", str(connections)]) as process:
        _line(process, "qanat-load idle")
        yield
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        _line(process, "qanat-load idle")


class Client:
    """A client that runs beside others; ``result`` waits for its end."""

    def __init__(self, command: str, address: str, options: dict[str, object]) -> None:
        self._what = f"qanat-load {command}"
        self._limit = 60 + float(str(options.get("seconds", 2)))
        self._process = subprocess.Popen(
            [str(binary()), command, address, *_words(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(self) -> dict[str, Any]:
        try:
            output, errors = self._process.communicate(timeout=self._limit)
        except subprocess.TimeoutExpired:
            self.stop()
            raise BenchmarkError(f"{self._what} did not end within {self._limit:.0f} s") from None
        if self._process.returncode != 0:
            raise BenchmarkError(errors.strip() or f"{self._what}: {self._process.returncode}")
        answer: dict[str, Any] = json.loads(output)
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def start_client(command: str, address: str, **options: object) -> Client:
    return Client(command, address, options)


def client(command: str, address: str, **options: object) -> dict[str, Any]:
    """Run one client to its end; its result."""
    return start_client(command, address, **options).result()
