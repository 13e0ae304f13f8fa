"""The command line: parses words, asks the rest of the package, and says what came of it.

Nothing imports this package but ``qanat.__main__`` and the installed script. Commands live one to
a file and are imported only when they are called, so that one command never pays for another.
"""

from __future__ import annotations

__all__: list[str] = []
