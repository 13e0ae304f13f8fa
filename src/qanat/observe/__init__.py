"""Seeing it work: logs, metrics, reasons, and the small HTTP server they are shown by.

Nothing here knows how a relay is run: what is shown is handed in as plain values.
"""

__all__: list[str] = []
