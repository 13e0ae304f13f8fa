"""Services and layers for proxies of one's own.

::

    async with open_server() as server:
        server.tcp("127.0.0.1:7000", stack(LimitConns(1000), Timeout(60), echo))
        await server.run()

What is listed in ``__all__`` is public. Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qanat.stack.address import Address
    from qanat.stack.bridge import Bridge
    from qanat.stack.bucket import Bucket
    from qanat.stack.codec.client_hello import ClientHello
    from qanat.stack.codec.http1 import RequestHead
    from qanat.stack.codec.proxy_protocol import ProxyHeader
    from qanat.stack.connect.engine import EngineConnector
    from qanat.stack.connect.guard import PRIVATE, Guard
    from qanat.stack.connect.happy_eyeballs import HappyEyeballs
    from qanat.stack.connect.pool import Pool
    from qanat.stack.connect.resolve import Resolve
    from qanat.stack.connect.resolver import Resolver
    from qanat.stack.connect.target import Connector, ConnectTo
    from qanat.stack.connect.tcp import TcpConnector
    from qanat.stack.connect.via import ViaProxy
    from qanat.stack.domains import DomainSet
    from qanat.stack.errors import (
        AuthRequired,
        ConcurrentUse,
        ConnectError,
        Denied,
        HalfCloseUnsupported,
        IncompleteRead,
        LimitReached,
        LocalProtocolError,
        PhaseTimeout,
        ProtocolError,
        RemoteProtocolError,
        Shutdown,
        StackError,
        StreamBroken,
        TlsError,
        answer_to,
    )
    from qanat.stack.extensions import Extensions
    from qanat.stack.facts import Accepted, Client, Listener, Peer, Rates, Target, Tls, User
    from qanat.stack.layers.access_log import AccessLog
    from qanat.stack.layers.engine_tls import EngineTls
    from qanat.stack.layers.engine_tls_connect import EngineTlsConnect
    from qanat.stack.layers.limit_conns import LimitConns, by_client
    from qanat.stack.layers.limit_rate import LimitRate
    from qanat.stack.layers.proxy_protocol import ProxyProtocolAccept, ProxyProtocolSend
    from qanat.stack.layers.throttle import Throttle
    from qanat.stack.layers.timeout import Timeout
    from qanat.stack.layers.tls_accept import TlsAccept
    from qanat.stack.layers.tls_connect import TlsConnect
    from qanat.stack.leaves import FROM_EXT, Forward, Reject, discard, echo
    from qanat.stack.match import (
        Alpn,
        Clients,
        Domains,
        HttpHost,
        HttpMethod,
        HttpPath,
        Matcher,
        Networks,
        PathParameters,
        Ports,
        Route,
        Sni,
        Users,
    )
    from qanat.stack.peek import HTTP, SOCKS4, SOCKS5, SSH, TLS, Peek, PeekRoute, Sign, SniRoute
    from qanat.stack.relaying import Relay, RelayReport, relay
    from qanat.stack.server import Server, ServerReport, open_server
    from qanat.stack.service import Layer, Service, describe, stack
    from qanat.stack.stream.base import Stream
    from qanat.stack.stream.memory import MemoryNetwork, memory_pipe
    from qanat.stack.stream.sockets import TcpStream, UnixStream
    from qanat.stack.stream.tls import TlsStream
    from qanat.stack.tls import TlsClientConfig, TlsServerConfig
    from qanat.stack.workers import run_workers

__all__ = [
    "FROM_EXT",
    "HTTP",
    "PRIVATE",
    "SOCKS4",
    "SOCKS5",
    "SSH",
    "TLS",
    "Accepted",
    "AccessLog",
    "Address",
    "Alpn",
    "AuthRequired",
    "Bridge",
    "Bucket",
    "Client",
    "ClientHello",
    "Clients",
    "ConcurrentUse",
    "ConnectError",
    "ConnectTo",
    "Connector",
    "Denied",
    "DomainSet",
    "Domains",
    "EngineConnector",
    "EngineTls",
    "EngineTlsConnect",
    "Extensions",
    "Forward",
    "Guard",
    "HalfCloseUnsupported",
    "HappyEyeballs",
    "HttpHost",
    "HttpMethod",
    "HttpPath",
    "IncompleteRead",
    "Layer",
    "LimitConns",
    "LimitRate",
    "LimitReached",
    "Listener",
    "LocalProtocolError",
    "Matcher",
    "MemoryNetwork",
    "Networks",
    "PathParameters",
    "Peek",
    "PeekRoute",
    "Peer",
    "PhaseTimeout",
    "Pool",
    "Ports",
    "ProtocolError",
    "ProxyHeader",
    "ProxyProtocolAccept",
    "ProxyProtocolSend",
    "Rates",
    "Reject",
    "Relay",
    "RelayReport",
    "RemoteProtocolError",
    "RequestHead",
    "Resolve",
    "Resolver",
    "Route",
    "Server",
    "ServerReport",
    "Service",
    "Shutdown",
    "Sign",
    "Sni",
    "SniRoute",
    "StackError",
    "Stream",
    "StreamBroken",
    "Target",
    "TcpConnector",
    "TcpStream",
    "Throttle",
    "Timeout",
    "Tls",
    "TlsAccept",
    "TlsClientConfig",
    "TlsConnect",
    "TlsError",
    "TlsServerConfig",
    "TlsStream",
    "UnixStream",
    "User",
    "Users",
    "ViaProxy",
    "answer_to",
    "by_client",
    "describe",
    "discard",
    "echo",
    "memory_pipe",
    "open_server",
    "relay",
    "run_workers",
    "stack",
]

_HOMES = {
    "address": ("Address",),
    "bridge": ("Bridge",),
    "bucket": ("Bucket",),
    "codec.client_hello": ("ClientHello",),
    "codec.http1": ("RequestHead",),
    "codec.proxy_protocol": ("ProxyHeader",),
    "connect.engine": ("EngineConnector",),
    "connect.guard": (
        "PRIVATE",
        "Guard",
    ),
    "connect.happy_eyeballs": ("HappyEyeballs",),
    "connect.pool": ("Pool",),
    "connect.resolve": ("Resolve",),
    "connect.resolver": ("Resolver",),
    "connect.target": (
        "Connector",
        "ConnectTo",
    ),
    "connect.tcp": ("TcpConnector",),
    "connect.via": ("ViaProxy",),
    "domains": ("DomainSet",),
    "errors": (
        "AuthRequired",
        "ConcurrentUse",
        "ConnectError",
        "Denied",
        "HalfCloseUnsupported",
        "IncompleteRead",
        "LimitReached",
        "LocalProtocolError",
        "PhaseTimeout",
        "ProtocolError",
        "RemoteProtocolError",
        "Shutdown",
        "StackError",
        "StreamBroken",
        "TlsError",
        "answer_to",
    ),
    "extensions": ("Extensions",),
    "facts": (
        "Accepted",
        "Client",
        "Listener",
        "Peer",
        "Rates",
        "Target",
        "Tls",
        "User",
    ),
    "layers.access_log": ("AccessLog",),
    "layers.engine_tls": ("EngineTls",),
    "layers.engine_tls_connect": ("EngineTlsConnect",),
    "layers.limit_conns": (
        "LimitConns",
        "by_client",
    ),
    "layers.limit_rate": ("LimitRate",),
    "layers.proxy_protocol": (
        "ProxyProtocolAccept",
        "ProxyProtocolSend",
    ),
    "layers.throttle": ("Throttle",),
    "layers.timeout": ("Timeout",),
    "layers.tls_accept": ("TlsAccept",),
    "layers.tls_connect": ("TlsConnect",),
    "leaves": (
        "FROM_EXT",
        "Forward",
        "Reject",
        "discard",
        "echo",
    ),
    "match": (
        "Alpn",
        "Clients",
        "Domains",
        "HttpHost",
        "HttpMethod",
        "HttpPath",
        "Matcher",
        "Networks",
        "PathParameters",
        "Ports",
        "Route",
        "Sni",
        "Users",
    ),
    "peek": (
        "HTTP",
        "SOCKS4",
        "SOCKS5",
        "SSH",
        "TLS",
        "Peek",
        "PeekRoute",
        "Sign",
        "SniRoute",
    ),
    "relaying": (
        "Relay",
        "RelayReport",
        "relay",
    ),
    "server": (
        "Server",
        "ServerReport",
        "open_server",
    ),
    "service": (
        "Layer",
        "Service",
        "describe",
        "stack",
    ),
    "stream.base": ("Stream",),
    "stream.memory": (
        "MemoryNetwork",
        "memory_pipe",
    ),
    "stream.sockets": (
        "TcpStream",
        "UnixStream",
    ),
    "stream.tls": ("TlsStream",),
    "tls": (
        "TlsClientConfig",
        "TlsServerConfig",
    ),
    "workers": ("run_workers",),
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
