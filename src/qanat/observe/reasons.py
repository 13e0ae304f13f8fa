"""Why flows end and why connections are refused: closed lists, one sentence for each word.

Logs, metrics, the control socket and the documentation use these words and no others. The words
are stable; the sentences may be improved. This module knows nothing but them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["DROPPED", "ENDED", "ORDERLY", "REFUSED", "sentence"]

ENDED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "client_closed": "Both sides finished in an orderly way, the client first.",
        "target_closed": "Both sides finished in an orderly way, the target first.",
        "client_reset": "The client's connection was reset or lost.",
        "target_reset": "The target's connection was reset or lost.",
        "idle_timeout": "Nothing moved in either direction for as long as idle_timeout allows.",
        "linger_timeout": "One side had finished and the other made no progress within linger.",
        "connect_refused": "The target refused the connection.",
        "connect_timeout": "The target was not reached within tcp_timeout, name look-up included.",
        "connect_unreachable": "There is no way to the target's network or host.",
        "connect_failed": "The connection to the target failed for another reason; see the detail.",
        "resolve_failed": "The target's name has no address.",
        "expired": "Nothing passed on a UDP association for as long as udp_timeout allows.",
        "evicted": "The least recently used UDP association gave way to a new one.",
        "killed": "The flow was ended by request.",
        "drained": "The flow was cut because the time for draining ran out.",
        "shutdown": "The flow was cut because the relay stopped at once.",
        "denied": "The access lists do not let the client in that the PROXY header announced.",
        "over_limit": "The client of the PROXY header was over a limit; see the detail.",
        "proxy_header": "The client sent no proper PROXY protocol header; see the detail.",
        "client_handshake_failed": "The TLS or WebSocket handshake failed at the client.",
        "target_handshake_failed": "The TLS or WebSocket handshake failed at the target.",
        "handshake_timeout": "A TLS or WebSocket handshake took longer than handshake_timeout.",
        "quota": "The endpoint's quota of bytes was used up.",
        "hook_refused": "The endpoint's hook refused the flow; its reason is the detail.",
        "hook_failed": "The hook failed or took longer than hook_timeout; see the detail.",
        "handed_back": "The engine left a client's further requests to Python; nothing is wrong.",
        "error": "Something unexpected failed; see the detail.",
    }
)
"""Why a flow ended."""

REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "connections": "The endpoint's max_connections were open.",
        "connection_rate": "The endpoint's max_connection_rate was exceeded.",
        "connections_per_client": "The client had the endpoint's max_connections_per_client open.",
        "overall_connections": "The relay's max_connections were open.",
        "overall_connection_rate": "The relay's max_connection_rate was exceeded.",
        "overall_connections_per_client": (
            "The client had the relay's max_connections_per_client open."
        ),
        "descriptors": "The process had no file descriptor left.",
        "denied": "The endpoint's access lists do not let the client in.",
        "quota": "The endpoint's quota of bytes was used up.",
    }
)
"""Why a connection was closed before it became a flow."""

DROPPED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "descriptors": "The process had no file descriptor left for a new association.",
        "send_failed": "The kernel did not take the datagram.",
        "too_big": "The datagram was larger than the way to its receiver allows.",
        "resolve_failed": "The target's name has no address.",
        "unreachable": "There is no way to the receiver's network or host.",
        "denied": "Access lists or rules say no, or the association does not know who sent it.",
        "quota": "The endpoint's quota of bytes was used up.",
        "rate_limited": "The datagram came faster than the limits on bytes a second allow.",
        "malformed": "What came from the client of a proxy had no header, or was a fragment.",
        "undecided": "Too many datagrams or targets waited for a decision.",
    }
)
"""Why a UDP datagram was not passed on."""

ORDERLY: Final = frozenset({"client_closed", "target_closed", "expired"})
"""The reasons that call for nobody's attention."""


def sentence(reason: str) -> str:
    """What a word of any of the lists means; the word itself if it is none of them."""
    return ENDED.get(reason) or REFUSED.get(reason) or DROPPED.get(reason) or reason
