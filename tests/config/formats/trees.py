"""Random documents, and where their keys are written. Knows no format."""

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

__all__ = ["documents", "paths", "written_at"]

Path = tuple[str | int, ...]

# Without the characters that the formats refuse everywhere, and without lone surrogates.
_TEXT = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f\x85\u2028\xa0"),
    max_size=8,
)
_SCALARS = st.one_of(st.booleans(), st.integers(-(2**40), 2**40), _TEXT)


def documents() -> st.SearchStrategy[dict[str, Any]]:
    """Tables of scalars, lists and tables."""
    values = st.recursive(
        _SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)
        ),
        max_leaves=12,
    )
    return st.dictionaries(_TEXT, values, max_size=4)


def paths(document: object, here: Path = ()) -> Iterator[Path]:
    """The path of each key and of each entry of a list."""
    if isinstance(document, dict):
        entries: Any = document.items()
    elif isinstance(document, list):
        entries = enumerate(document)
    else:
        return
    for key, value in entries:
        yield (*here, key)
        yield from paths(value, (*here, key))


def written_at(text: str, place: tuple[int, int]) -> str:
    """What stands in a text from a line and column on."""
    line, column = place
    return text.split("\n")[line - 1][column - 1 :]
