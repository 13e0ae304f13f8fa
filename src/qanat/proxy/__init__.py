"""Proxies made with the framework: SOCKS and HTTP."""

__all__: list[str] = []
