"""The fuzz targets, shortly: whatever the bytes, an answer or its error. ``make fuzz`` goes on."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.config import TARGETS, Failure, corpus, main, seeds

__all__: list[str] = []


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_itself(name: str) -> None:
    for raw in seeds():
        TARGETS[name](raw)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_made_of_the_corpus(name: str) -> None:
    made = corpus(random.Random(7))  # the same each time
    for _ in range(150):
        TARGETS[name](next(made))


@pytest.mark.parametrize("name", TARGETS)
@given(raw=st.binary(max_size=200))
def test_any_bytes(name: str, raw: bytes) -> None:
    TARGETS[name](raw)


def test_a_finding_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(raw: bytes) -> None:
        raise Failure(f"{len(raw)} bytes")

    monkeypatch.setitem(TARGETS, "broken", broken)
    assert main(["5", "1"]) == 1
    told = capsys.readouterr().out
    assert "seed 1" in told
    assert "target broken: Failure(" in told


def test_nothing_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["0.2", "2"]) == 0
    assert "nothing found" in capsys.readouterr().out
