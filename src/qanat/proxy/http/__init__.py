"""The HTTP proxy: CONNECT, and plain requests."""

from qanat.proxy.http.service import Forwarded, HttpProxy

__all__ = ["Forwarded", "HttpProxy"]
