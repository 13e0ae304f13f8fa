"""What a user writes, turned into types that can't hold a wrong value.

This room reads configuration text and nothing else: it opens no socket, resolves no name and knows
neither the command line nor the engine. Import the module you need; nothing is imported here, so
that a program that starts pays only for what it uses.
"""

from __future__ import annotations

__all__: list[str] = []
