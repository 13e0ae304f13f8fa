"""The closed lists of words."""

from __future__ import annotations

import re
from pathlib import Path

from qanat.observe.reasons import DROPPED, ENDED, ORDERLY, REFUSED, sentence


def test_every_word_has_a_sentence() -> None:
    for words in (ENDED, REFUSED, DROPPED):
        for word, text in words.items():
            assert word == word.lower()
            assert text.endswith(".")
            assert text[0].isupper()
            assert sentence(word) in (ENDED.get(word), REFUSED.get(word), DROPPED.get(word))


def test_orderly_ends_are_ends() -> None:
    assert set(ENDED) >= ORDERLY


def test_an_unknown_word_is_its_own_sentence() -> None:
    assert sentence("eclipse") == "eclipse"


def test_the_engine_has_the_same_words() -> None:
    source = Path(__file__).parents[2] / "engine" / "src" / "flow" / "reason.rs"
    words = set(re.findall(r'=> "(\w+)"', source.read_text(encoding="utf-8")))
    assert words == {*ENDED, *REFUSED, *DROPPED}
