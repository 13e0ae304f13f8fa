"""Print what pip has to install for one purpose, read from pyproject.toml.

``python tools/requirements.py runtime test`` prints the runtime dependencies and the dependency
group ``test`` with what it includes, one requirement a line. Older pips know no groups, and an
environment made by Python 3.11 has such a pip.
"""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["requirements"]


def requirements(project: dict[str, Any], purpose: str) -> Iterator[str]:
    """The requirements of ``runtime`` or of a dependency group, in order of writing."""
    if purpose == "runtime":
        yield from project["project"]["dependencies"]
        return
    for entry in project["dependency-groups"][purpose]:
        if isinstance(entry, str):
            yield entry
        else:
            yield from requirements(project, entry["include-group"])


def _main(purposes: list[str]) -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)
    for purpose in purposes:
        for requirement in requirements(project, purpose):
            sys.stdout.write(requirement + "\n")


if __name__ == "__main__":
    _main(sys.argv[1:])
