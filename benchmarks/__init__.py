"""What qanat and other relays cost, side by side: one question per file, run by ``-m benchmarks``.

Nothing in here is part of the package, and the package imports nothing from here.
"""

from __future__ import annotations

__all__: list[str] = []
