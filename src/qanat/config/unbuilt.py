"""What a configuration can say and the engine can't do yet: the one table of it.

Whoever makes a thing work takes its line out, and nothing else. A file that asks for what is listed
here is refused, so that none silently does less than it says.
"""

from __future__ import annotations

from typing import Final

from qanat.config.refusal import refuse

__all__ = ["UNBUILT", "needs"]

UNBUILT: Final[dict[str, str]] = {}


def needs(feature: str, hint: str = "take the key out") -> None:
    """Refuse, inside of a validator, what needs a feature that is not there."""
    what = UNBUILT.get(feature)
    if what is not None:
        refuse(f"{what} not yet supported", hint, kind="not_yet")
