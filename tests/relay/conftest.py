"""The fake engine in the place of the native one, for the tests that ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from qanat import engine
from tests.relay.fake_engine import FakeModule


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModule]:
    module = FakeModule()
    monkeypatch.setattr(engine, "_native", lambda: cast("object", module))
    yield module
    assert all(made.ended for made in module.made), "a test left an engine running"


@pytest.fixture(autouse=True)
def all_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the engine can't do yet is the matter of a test of its own."""
    monkeypatch.setattr("qanat.config.unbuilt.UNBUILT", {})
