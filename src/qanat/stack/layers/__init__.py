"""Layers for any stream or service."""

__all__: list[str] = []
