"""Lists of words in messages, and the word that was probably meant. Pure."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["nearest", "words"]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    # Not needed by a program that starts without a mistake in its configuration.
    from difflib import get_close_matches

    plain = {name.lower().replace("-", "_"): name for name in known}
    asked = word[:64].lower().replace("-", "_")
    if asked in plain:
        return plain[asked]
    close = get_close_matches(asked, plain, n=1, cutoff=0.65)
    return plain[close[0]] if close else None


def words(names: Iterable[str], last: str = "or") -> str:
    """``a, b or c``."""
    *rest, end = names
    return f"{', '.join(rest)} {last} {end}" if rest else end
