"""Connectors, and the layers around them.

Names are loaded at their first use: who only dials does not wait for the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qanat.stack.connect.engine import EngineConnector
    from qanat.stack.connect.guard import PRIVATE, Guard, reach
    from qanat.stack.connect.happy_eyeballs import HappyEyeballs
    from qanat.stack.connect.pool import Pool
    from qanat.stack.connect.proxy_url import ProxyUrl
    from qanat.stack.connect.resolve import Resolve
    from qanat.stack.connect.resolver import Resolver
    from qanat.stack.connect.target import Connector, ConnectTo
    from qanat.stack.connect.tcp import TcpConnector
    from qanat.stack.connect.via import ViaProxy

__all__ = [
    "PRIVATE",
    "ConnectTo",
    "Connector",
    "EngineConnector",
    "Guard",
    "HappyEyeballs",
    "Pool",
    "ProxyUrl",
    "Resolve",
    "Resolver",
    "TcpConnector",
    "ViaProxy",
    "reach",
]

_HOMES = {
    "engine": ("EngineConnector",),
    "guard": ("PRIVATE", "Guard", "reach"),
    "happy_eyeballs": ("HappyEyeballs",),
    "pool": ("Pool",),
    "proxy_url": ("ProxyUrl",),
    "resolve": ("Resolve",),
    "resolver": ("Resolver",),
    "target": ("ConnectTo", "Connector"),
    "tcp": ("TcpConnector",),
    "via": ("ViaProxy",),
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
