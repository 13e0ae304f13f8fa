"""What the tests from end to end begin with: a relay as a process, a target, a small network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.netns import Wire
from tests.support.netns import wire as made_wire
from tests.support.peers import Target
from tests.support.relay_process import RelayProcess
from tests.support.site import serving_pages

__all__ = ["Start"]

Start = Callable[..., RelayProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a relay with these words of its command line; it is ready when this returns."""
    with ExitStack() as stack:
        count = 0

        def run(
            *words: str, before: tuple[str, ...] = (), level: str = "info", **env: str
        ) -> RelayProcess:
            nonlocal count
            count += 1
            directory = tmp_path / f"relay-{count}"
            directory.mkdir()
            relay = RelayProcess(directory, *words, before=before, level=level, **env)
            return stack.enter_context(relay).ready()

        yield run


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as listening:
        yield listening


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Namespaces of a client, a relay and a target. Tests that use it are marked ``root``."""
    with made_wire() as made:
        yield made


@pytest.fixture
def site() -> Iterator[str]:
    """The URL of a site that tells what it was asked for."""
    with serving_pages() as url:
        yield url
