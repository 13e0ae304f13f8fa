"""Connectors, and the layers around them."""

__all__: list[str] = []
