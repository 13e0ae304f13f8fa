"""Proxies made with the framework: SOCKS and HTTP.

What is listed in ``__all__`` is public. Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qanat.proxy.auth import (
        Authenticator,
        HashedUsers,
        UserPass,
        hash_password,
        verify_password,
    )
    from qanat.proxy.http import HttpProxy
    from qanat.proxy.mixed import MixedProxy
    from qanat.proxy.socks5 import Socks5Server
    from qanat.proxy.socks_udp import FirstCandidate, UdpAssociate

__all__ = [
    "Authenticator",
    "FirstCandidate",
    "HashedUsers",
    "HttpProxy",
    "MixedProxy",
    "Socks5Server",
    "UdpAssociate",
    "UserPass",
    "hash_password",
    "verify_password",
]

_HOMES = {
    "auth": (
        "Authenticator",
        "HashedUsers",
        "UserPass",
        "hash_password",
        "verify_password",
    ),
    "http": ("HttpProxy",),
    "mixed": ("MixedProxy",),
    "socks5": ("Socks5Server",),
    "socks_udp": (
        "FirstCandidate",
        "UdpAssociate",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
