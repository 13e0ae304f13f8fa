"""The lines a starting relay prints on stdout, in realm's words. Pure: plans in, text out."""

from __future__ import annotations

from collections.abc import Iterable

from qanat.plan import EndpointPlan, ResolverPlan, TcpPlan, UdpPlan

__all__ = ["descriptors_line", "dns_line", "endpoint_line", "log_line", "pipe_line"]

_PAGE = 4096
_TCP = TcpPlan()
_UDP = UdpPlan()


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
    proxy = "send-proxy=false, send-proxy-version=2, accept-proxy=false, accept-proxy-timeout=5s"
    times = (
        f"tcp-keepalive={tcp.keepalive}s[{tcp.keepalive_probes}] "
        f"connect-timeout={tcp.connect_timeout:g}s, associate-timeout={udp.timeout:g}s"
    )
    return (
        f"inited: {address or plan.listen} -> [{'|'.join(_remotes(plan))}]; options: "
        f"{listening}; {sending}; {proxy}; {times}; balance=off"
    )


def _remotes(plan: EndpointPlan) -> Iterable[str]:
    for remote in plan.remotes:
        host = f"[{remote.host}]" if ":" in remote.host else remote.host
        yield f"{host}:{remote.port}"


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)


def _truth(value: bool) -> str:
    return "true" if value else "false"
