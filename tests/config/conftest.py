"""The configuration is tested for what it will say when the engine can do everything."""

import pytest

__all__: list[str] = []


@pytest.fixture(autouse=True)
def all_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """:mod:`tests.config.test_unbuilt` tests what is refused until then."""
    monkeypatch.setattr("qanat.config.unbuilt.UNBUILT", {})
