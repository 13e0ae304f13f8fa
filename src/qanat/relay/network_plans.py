"""The parts of a plan that come of an endpoint's ``network`` table. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qanat.config.health_check import MOST_BYTES, Check
from qanat.config.networks import parse_network
from qanat.config.octets import parse_octets
from qanat.plan import (
    CheckPlan,
    HealthPlan,
    HttpCheckPlan,
    LimitsPlan,
    ProxyProtocolPlan,
    ProxyVersion,
    RatesPlan,
    TcpPlan,
    UdpCheckPlan,
    UdpPlan,
)

__all__ = ["Carried", "carried", "networks"]


@dataclass(frozen=True, slots=True)
class Carried:
    """How flows are carried."""

    tcp: TcpPlan | None
    udp: UdpPlan | None
    ipv6_only: bool
    limits: LimitsPlan
    proxy: ProxyProtocolPlan
    rates: RatesPlan
    health: HealthPlan
    """For an endpoint that changes to another remote when one fails."""
    checks: HealthPlan
    """For one that does not."""
    handshake_timeout: float


def carried(network: Mapping[str, Any]) -> Carried:
    """From the values of the table, complete."""
    tcp = TcpPlan(
        connect_timeout=float(network["tcp_timeout"]),
        keepalive=network["tcp_keepalive"],
        keepalive_probes=network["tcp_keepalive_probe"],
        accept_mptcp=network["accept_mptcp"],
        send_mptcp=network["send_mptcp"],
        idle_timeout=float(network["idle_timeout"]),
        linger=float(network["linger"]),
    )
    limits = LimitsPlan(
        connections=network["max_connections"],
        connection_rate=network["max_connection_rate"],
        connections_per_client=network["max_connections_per_client"],
        associations=network["max_associations"],
    )
    rates = RatesPlan(
        flow_up=network["max_rate_up_per_flow"],
        flow_down=network["max_rate_down_per_flow"],
        client_up=network["max_rate_up_per_client"],
        client_down=network["max_rate_down_per_client"],
        endpoint_up=network["max_rate_up"],
        endpoint_down=network["max_rate_down"],
    )
    check = _check(network["check"])
    return Carried(
        tcp=None if network["no_tcp"] else tcp,
        udp=UdpPlan(timeout=float(network["udp_timeout"])) if network["use_udp"] else None,
        ipv6_only=network["ipv6_only"],
        limits=limits,
        proxy=_proxy(network),
        rates=rates,
        health=HealthPlan(
            failover=True,
            max_fails=network["max_fails"],
            fail_timeout=network["fail_timeout"] / 1000,
            check=check,
        ),
        # What is not asked for does not make a plan another.
        checks=HealthPlan(check=check),
        handshake_timeout=float(network["handshake_timeout"]),
    )


def networks(texts: Iterable[str]) -> tuple[str, ...]:
    """In one form for each network, however it was written."""
    return tuple(str(parse_network(text)) for text in texts)


def _proxy(network: Mapping[str, Any]) -> ProxyProtocolPlan:
    send: ProxyVersion = network["send_proxy_version"] if network["send_proxy"] else 0
    plan = ProxyProtocolPlan(send=send, send_udp=network["send_proxy_udp"])
    accept = network["accept_proxy"]
    if accept is False:
        return plan
    return ProxyProtocolPlan(
        accept="optional" if accept == "optional" else "required",
        accept_timeout=float(network["accept_proxy_timeout"]),
        trusted=networks(network["accept_proxy_from"]),
        send=plan.send,
        send_udp=plan.send_udp,
    )


def _check(check: Check | None) -> CheckPlan | None:
    if check is None or check.kind == "off":
        return None
    http = udp = None
    if check.kind == "http":
        http = HttpCheckPlan(path=check.path or "/", host=check.host, status=check.status)
    if check.kind == "udp":
        udp = UdpCheckPlan(send=_hex(check.send), expect=_hex(check.expect))
    return CheckPlan(
        kind=check.kind,
        interval=float(check.interval),
        timeout=float(check.timeout),
        rise=check.rise,
        fall=check.fall,
        http=http,
        udp=udp,
    )


def _hex(text: str | None) -> str:
    return "" if text is None else parse_octets(text, MOST_BYTES).hex()
