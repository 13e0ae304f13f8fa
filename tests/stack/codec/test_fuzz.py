"""The fuzz targets of the codecs, shortly, and that they would find something."""

from __future__ import annotations

import pytest

from qanat.stack.codec.verdict import NEED_MORE, NeedMore
from tests.fuzz import codecs
from tests.support.splits import survives

__all__: list[str] = []


def test_proxies_messages() -> None:
    assert codecs.fuzz(1.0, seed=7) is None


def test_a_parser_without_a_cap_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(data: bytes) -> NeedMore:
        return NEED_MORE

    monkeypatch.setattr(codecs, "TARGETS", {"greedy": (greedy, 20)})
    with pytest.raises(AssertionError):
        survives(greedy, bytes(30), 20)
    found = codecs.fuzz(5.0, seed=7)
    assert found is not None
    assert found[0] == "greedy"
