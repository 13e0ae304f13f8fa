"""The reference says what the docstrings say."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

import qanat.proxy
import qanat.stack
from tests.docs.pages import ROOT

__all__: list[str] = []


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = _load()


def test_the_page_is_up_to_date() -> None:
    page = ROOT / "docs" / "reference.md"
    assert page.read_text(encoding="utf-8") == REFERENCE.page(), (
        "run: python tools/reference.py docs/reference.md"
    )


def test_every_public_name_has_a_place() -> None:
    names = {name for name, _ in REFERENCE.public()}
    assert names == {*qanat.stack.__all__, *qanat.proxy.__all__}
    page = REFERENCE.page()
    assert [name for name in sorted(names) if f"### `{name}`" not in page] == []


@pytest.mark.parametrize(("name", "home"), list(REFERENCE.public()))
def test_every_public_name_says_what_it_is(name: str, home: str) -> None:
    parts = list(REFERENCE._entry(name, home))
    assert [part for part in parts[2:] if not part.startswith("```")]
