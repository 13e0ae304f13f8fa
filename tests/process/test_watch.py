"""Noticing that a configuration has changed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from qanat.process.watch import fingerprint, watch
from tests.support.wait import wait_until_async


def changed_by(before: Callable[[], object], path: Path) -> bool:
    first = fingerprint([path])
    before()
    return fingerprint([path]) != first


def test_what_counts_as_a_change_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text("one")
    other = tmp_path / "other"
    other.write_text("one")
    assert changed_by(lambda: path.write_text("longer"), path)
    assert changed_by(lambda: os.utime(path, ns=(1, 1)), path)
    assert changed_by(lambda: other.replace(path), path)
    assert changed_by(path.unlink, path)
    assert not changed_by(lambda: (tmp_path / "beside").write_text("x"), path)


def test_what_counts_as_a_change_of_a_folder(tmp_path: Path) -> None:
    part = tmp_path / "a.toml"
    assert changed_by(lambda: part.write_text("x"), tmp_path)
    assert changed_by(lambda: part.write_text("xy"), tmp_path)
    assert not changed_by(lambda: (tmp_path / ".a.toml.swp").write_text("x"), tmp_path)
    assert changed_by(part.unlink, tmp_path)


def test_a_link_that_is_turned_is_a_change(tmp_path: Path) -> None:
    for name in ("v1", "v2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "relay.toml").write_text(name)
    link = tmp_path / "current"
    link.symlink_to("v1")
    fresh = tmp_path / "fresh"
    fresh.symlink_to("v2")
    assert changed_by(lambda: fresh.replace(link), link / "relay.toml")


class Watching:
    def __init__(self, path: Path) -> None:
        self.calls = 0
        self._path = path

    async def __aenter__(self) -> Watching:
        known = fingerprint([self._path])
        self._task = asyncio.ensure_future(
            watch([self._path], self._changed, known=known, every=0.02, quiet=0.05)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._task

    def _changed(self) -> None:
        self.calls += 1


def test_a_burst_of_writes_is_one_change(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text("")

    async def main() -> None:
        async with Watching(path) as watching:
            for number in range(10):
                path.write_text("x" * number)
                await asyncio.sleep(0.01)
            await wait_until_async(lambda: watching.calls)
            path.write_text("y")
            await wait_until_async(lambda: watching.calls == 2)

    asyncio.run(main())


def test_a_file_that_is_away_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text("one")

    async def main() -> None:
        async with Watching(path) as watching:
            path.unlink()
            await asyncio.sleep(0.2)
            assert watching.calls == 0
            path.write_text("two")
            await wait_until_async(lambda: watching.calls == 1)

    asyncio.run(main())
