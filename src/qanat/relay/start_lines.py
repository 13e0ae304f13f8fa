"""The lines a starting relay prints on stdout, in realm's words. Pure: plans in, text out."""

from __future__ import annotations

from collections.abc import Iterable

from qanat.plan import (
    EndpointPlan,
    ListenTransportPlan,
    RemoteTransportPlan,
    ResolverPlan,
    TcpPlan,
    UdpPlan,
)

__all__ = ["descriptors_line", "dns_line", "endpoint_line", "log_line", "pipe_line"]

_PAGE = 4096
_TCP = TcpPlan()
_UDP = UdpPlan()
_VERSION = 2
_ACCEPTED = {"off": "false", "required": "true", "optional": "optional"}


def descriptors_line(soft: int, hard: int) -> str:
    return f"fd: soft={soft}, hard={hard}"


def pipe_line(pages: int) -> str:
    return f"pipe capacity: {pages * _PAGE}"


def log_line(level: str, output: str) -> str:
    return f"log: level={level}, output={output}"


def dns_line(resolver: ResolverPlan) -> str:
    protocol = resolver.protocol.replace("_and_", "+")
    servers = ", ".join(resolver.nameservers) or "system"
    return (
        f"dns: mode={resolver.mode}, protocol={protocol}, min-ttl={resolver.min_ttl}, "
        f"max-ttl={resolver.max_ttl}, cache-size={resolver.cache_size}, servers={servers}"
    )


def endpoint_line(plan: EndpointPlan, address: str | None = None) -> str:
    """``address`` is what it listens on in the end, where the kernel chose the port."""
    tcp, udp = plan.tcp or _TCP, plan.udp or _UDP
    listening = _joined(
        plan.listen_interface and f"listen-iface={plan.listen_interface}",
        f"ipv6-only={_truth(plan.ipv6_only)}",
        f"accept-mptcp={_truth(tcp.accept_mptcp)}",
    )
    sending = _joined(
        plan.interface and f"send-iface={plan.interface}",
        (source := plan.through or plan.through_interface) and f"send-through={source}",
        f"send-mptcp={_truth(tcp.send_mptcp)}",
    )
    proxy = _joined(
        f"send-proxy={_truth(plan.proxy.send != 0)}",
        f"send-proxy-version={plan.proxy.send or _VERSION}",
        f"accept-proxy={_ACCEPTED[plan.proxy.accept]}",
        f"accept-proxy-timeout={plan.proxy.accept_timeout:g}s",
    )
    times = (
        f"tcp-keepalive={tcp.keepalive}s[{tcp.keepalive_probes}] "
        f"connect-timeout={tcp.connect_timeout:g}s, associate-timeout={udp.timeout:g}s"
    )
    return (
        f"inited: {address or plan.listen} -> [{'|'.join(_remotes(plan))}]; options: "
        f"{listening}; {sending}; {proxy}; {times}; {_transport(plan)}balance={plan.balance}"
    )


def _transport(plan: EndpointPlan) -> str:
    if plan.listen_transport is None and plan.remote_transport is None:
        return ""
    return f"transport={_stack(plan.listen_transport)}||{_stack(plan.remote_transport)}; "


def _stack(wrapped: ListenTransportPlan | RemoteTransportPlan | None) -> str:
    """Every layer in brackets, the innermost first."""
    if wrapped is None:
        return "[plain]"
    layers = {"uot": wrapped.uot, "ws": wrapped.ws, "tls": wrapped.tls, "plain": True}
    return "".join(f"[{name}]" for name, there in layers.items() if there)


def _remotes(plan: EndpointPlan) -> Iterable[str]:
    for remote in plan.remotes:
        host = f"[{remote.host}]" if ":" in remote.host else remote.host
        yield f"{host}:{remote.port}"


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)


def _truth(value: bool) -> str:
    return "true" if value else "false"
