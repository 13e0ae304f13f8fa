"""qanat carries network flows: a relay for TCP and UDP, as a library.

::

    endpoint = qanat.Endpoint(listen="127.0.0.1:0", remote="example.com:80")
    async with qanat.Relay([endpoint]) as relay:
        print(relay.endpoints[0].address, relay.stats())
        async for flow in relay.ended():
            print(flow.client, flow.bytes_up, flow.bytes_down, flow.reason)

A configuration file is read by ``qanat.load(path)`` and run by ``qanat.Relay(config=...)``.

What is listed in ``__all__`` is public; everything else may change without notice. Names are loaded
when they are first used, so that ``import qanat`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qanat.config.load import Loaded, load
    from qanat.config.models import (
        Certificate,
        Check,
        Config,
        Dns,
        Endpoint,
        Limits,
        ListenTls,
        ListenTransport,
        Log,
        Network,
        RemoteTls,
        RemoteTransport,
        Route,
        WebSocket,
    )
    from qanat.errors import (
        BindError,
        ConfigError,
        ControlError,
        EngineClosed,
        Problem,
        QanatError,
        RelayStateError,
    )
    from qanat.observe.flow import Flow
    from qanat.observe.stats import Stats
    from qanat.relay.arrival import Arrival, Decision, Refuse
    from qanat.relay.difference import Report
    from qanat.relay.ended import EndedFlows
    from qanat.relay.notice import Notice
    from qanat.relay.relay import Relay, RunningEndpoint

    __version__: str

__all__ = [
    "Arrival",
    "BindError",
    "Certificate",
    "Check",
    "Config",
    "ConfigError",
    "ControlError",
    "Decision",
    "Dns",
    "EndedFlows",
    "Endpoint",
    "EngineClosed",
    "Flow",
    "Limits",
    "ListenTls",
    "ListenTransport",
    "Loaded",
    "Log",
    "Network",
    "Notice",
    "Problem",
    "QanatError",
    "Refuse",
    "Relay",
    "RelayStateError",
    "RemoteTls",
    "RemoteTransport",
    "Report",
    "Route",
    "RunningEndpoint",
    "Stats",
    "WebSocket",
    "__version__",
    "load",
]

_HOMES = {
    "qanat.config.load": ("Loaded", "load"),
    "qanat.config.models": (
        "Certificate",
        "Check",
        "Config",
        "Dns",
        "Endpoint",
        "Limits",
        "ListenTls",
        "ListenTransport",
        "Log",
        "Network",
        "RemoteTls",
        "RemoteTransport",
        "Route",
        "WebSocket",
    ),
    "qanat.errors": (
        "BindError",
        "ConfigError",
        "ControlError",
        "EngineClosed",
        "Problem",
        "QanatError",
        "RelayStateError",
    ),
    "qanat.relay.arrival": ("Arrival", "Decision", "Refuse"),
    "qanat.relay.difference": ("Report",),
    "qanat.relay.ended": ("EndedFlows",),
    "qanat.observe.flow": ("Flow",),
    "qanat.relay.notice": ("Notice",),
    "qanat.relay.relay": ("Relay", "RunningEndpoint"),
    "qanat.observe.stats": ("Stats",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: object = import_module("qanat._engine").__version__
    elif name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
