"""Streams of bytes: TCP, Unix, TLS, memory, and those the engine holds.

Names are loaded at their first use: who only relays sockets does not wait for the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qanat.stack.stream.base import CHUNK, Detached, Stream
    from qanat.stack.stream.engine import EngineStream, shake_as_client, shake_as_server
    from qanat.stack.stream.memory import MemoryNetwork, MemoryStream, memory_pipe
    from qanat.stack.stream.messages import read_message
    from qanat.stack.stream.sockets import SocketStream, TcpStream, UnixStream

__all__ = [
    "CHUNK",
    "Detached",
    "EngineStream",
    "MemoryNetwork",
    "MemoryStream",
    "SocketStream",
    "Stream",
    "TcpStream",
    "UnixStream",
    "memory_pipe",
    "read_message",
    "shake_as_client",
    "shake_as_server",
]

_HOMES = {
    "base": ("CHUNK", "Detached", "Stream"),
    "engine": ("EngineStream", "shake_as_client", "shake_as_server"),
    "memory": ("MemoryNetwork", "MemoryStream", "memory_pipe"),
    "messages": ("read_message",),
    "sockets": ("SocketStream", "TcpStream", "UnixStream"),
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
