"""Protocols as functions from bytes to meaning: no I/O, no clock, no logging."""

__all__: list[str] = []
