"""The HTTP proxy: CONNECT, and plain requests."""

from qanat.proxy.http.forwarding import Forwarded
from qanat.proxy.http.limits import UserLimits
from qanat.proxy.http.service import HttpProxy

__all__ = ["Forwarded", "HttpProxy", "UserLimits"]
