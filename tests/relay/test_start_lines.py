"""The lines on stdout at start, word for word."""

from __future__ import annotations

from qanat.plan import (
    EndpointPlan,
    ListenTransportPlan,
    ProxyProtocolPlan,
    RemotePlan,
    RemoteTransportPlan,
    ResolverPlan,
    TcpPlan,
    TlsListenPlan,
    TlsSendPlan,
    UdpPlan,
    WebSocketPlan,
)
from qanat.relay.start_lines import descriptors_line, dns_line, endpoint_line, log_line, pipe_line


def test_the_default_endpoint() -> None:
    plan = EndpointPlan(
        id="x", listen="0.0.0.0:5000", remotes=(RemotePlan(host="1.1.1.1", port=443),)
    )
    assert endpoint_line(plan) == (
        "inited: 0.0.0.0:5000 -> [1.1.1.1:443]; options: ipv6-only=false, accept-mptcp=false; "
        "send-mptcp=false; send-proxy=false, send-proxy-version=2, accept-proxy=false, "
        "accept-proxy-timeout=5s; tcp-keepalive=15s[3] connect-timeout=5s, "
        "associate-timeout=30s; balance=off"
    )


def test_everything_set() -> None:
    plan = EndpointPlan(
        id="x",
        listen="[::]:0",
        remotes=(RemotePlan(host="::1", port=1), RemotePlan(host="example.com", port=2)),
        tcp=TcpPlan(
            connect_timeout=7, keepalive=20, keepalive_probes=4, accept_mptcp=True, send_mptcp=True
        ),
        udp=UdpPlan(timeout=1.5),
        ipv6_only=True,
        listen_interface="eth0",
        interface="eth1",
        through="192.0.2.1:0",
    )
    assert endpoint_line(plan, "[::]:4711") == (
        "inited: [::]:4711 -> [[::1]:1|example.com:2]; options: listen-iface=eth0, ipv6-only=true, "
        "accept-mptcp=true; send-iface=eth1, send-through=192.0.2.1:0, send-mptcp=true; "
        "send-proxy=false, send-proxy-version=2, accept-proxy=false, accept-proxy-timeout=5s; "
        "tcp-keepalive=20s[4] connect-timeout=7s, associate-timeout=1.5s; balance=off"
    )


def test_transports_balance_and_proxy() -> None:
    plan = EndpointPlan(
        id="x",
        listen="0.0.0.0:1",
        remotes=(RemotePlan(host="a", port=1), RemotePlan(host="b", port=2)),
        balance="iphash",
        proxy=ProxyProtocolPlan(accept="required", accept_timeout=7, send=1),
        listen_transport=ListenTransportPlan(
            tls=TlsListenPlan(self_signed="a"), ws=WebSocketPlan(host="a", path="/")
        ),
    )
    line = endpoint_line(plan)
    assert line.startswith("inited: 0.0.0.0:1 -> [a:1|b:2]; options: ")
    assert (
        "; send-proxy=true, send-proxy-version=1, accept-proxy=true, accept-proxy-timeout=7s; "
    ) in line
    assert line.endswith("; transport=[ws][tls][plain]||[plain]; balance=iphash")


def test_a_transport_of_the_other_side_and_ours() -> None:
    plan = EndpointPlan(
        id="x",
        listen="0.0.0.0:1",
        remotes=(RemotePlan(host="a", port=1),),
        remote_transport=RemoteTransportPlan(tls=TlsSendPlan(sni="a"), uot=True),
        proxy=ProxyProtocolPlan(accept="optional"),
    )
    line = endpoint_line(plan)
    assert "accept-proxy=optional" in line
    assert line.endswith("; transport=[plain]||[uot][tls][plain]; balance=off")


def test_the_other_lines() -> None:
    assert descriptors_line(1024, 4096) == "fd: soft=1024, hard=4096"
    assert pipe_line(16) == "pipe capacity: 65536"
    assert log_line("warn", "stderr") == "log: level=warn, output=stderr"
    assert dns_line(ResolverPlan()) == (
        "dns: mode=ipv4_and_ipv6, protocol=tcp+udp, min-ttl=0, max-ttl=86400, "
        "cache-size=8192, servers=system"
    )
    two = ResolverPlan(protocol="udp", nameservers=("192.0.2.1:53", "[::1]:53"))
    assert dns_line(two).endswith(
        "protocol=udp, min-ttl=0, max-ttl=86400, cache-size=8192, servers=192.0.2.1:53, [::1]:53"
    )
