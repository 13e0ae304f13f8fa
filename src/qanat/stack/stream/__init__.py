"""Streams of bytes: TCP, Unix, TLS, memory, and those the engine holds."""

__all__: list[str] = []
