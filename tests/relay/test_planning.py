from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from qanat.config.models import Config, Dns, Endpoint, Limits, Network
from qanat.errors import ConfigError
from qanat.plan import (
    EndpointPlan,
    HealthPlan,
    HookPlan,
    LimitsPlan,
    ListenTransportPlan,
    ProxyProtocolPlan,
    RatesPlan,
    RemotePlan,
    RemoteTransportPlan,
    ResolverPlan,
    RoutingPlan,
    RulePlan,
    TcpPlan,
    TlsSendPlan,
    UdpPlan,
    WebSocketPlan,
)
from qanat.relay.planning import overall_limits, plans


def only(config: Config) -> EndpointPlan:
    (plan,) = plans(config)
    return plan


def endpoint(listen: str = "127.0.0.1:80", remote: str = "h:1", **other: Any) -> Endpoint:
    return Endpoint(listen=listen, remote=remote, **other)


def test_a_plain_endpoint_gets_the_defaults_of_the_plan() -> None:
    assert only(Config(endpoints=[endpoint()])) == EndpointPlan(
        id="127.0.0.1:80",
        listen="127.0.0.1:80",
        remotes=(RemotePlan(host="h", port=1),),
        limits=LimitsPlan(associations=4096),
    )


def test_every_network_key_arrives_in_the_plan() -> None:
    network = Network(
        use_udp=True,
        ipv6_only=True,
        tcp_timeout=6,
        udp_timeout=31,
        tcp_keepalive=16,
        tcp_keepalive_probe=4,
        send_mptcp=True,
        accept_mptcp=True,
        idle_timeout=1.5,
        linger=2.5,
        max_connections=1,
        max_connection_rate=2,
        max_connections_per_client=3,
        max_associations=4,
    )
    plan = only(Config(endpoints=[endpoint(network=network)]))
    assert plan.tcp == TcpPlan(
        connect_timeout=6.0,
        keepalive=16,
        keepalive_probes=4,
        accept_mptcp=True,
        send_mptcp=True,
        idle_timeout=1.5,
        linger=2.5,
    )
    assert plan.udp == UdpPlan(timeout=31.0)
    assert plan.ipv6_only
    assert plan.limits == LimitsPlan(
        connections=1, connection_rate=2, connections_per_client=3, associations=4
    )


def test_each_network_field_of_the_endpoint_wins_and_the_others_come_from_the_file() -> None:
    common = Network(tcp_timeout=9, use_udp=True, no_tcp=True)
    plan = only(Config(network=common, endpoints=[endpoint(network=Network(no_tcp=False))]))
    assert plan.tcp == TcpPlan(connect_timeout=9.0)
    assert plan.udp == UdpPlan()


def test_an_endpoint_without_protocols_gives_no_plan() -> None:
    assert plans(Config(endpoints=[endpoint(network=Network(no_tcp=True))])) == []


@pytest.mark.parametrize(
    ("listen", "literal"),
    [
        (":::80", "[::]:80"),
        ("[::1]:80", "[::1]:80"),
        ("*:80", "0.0.0.0:80"),
        ("0:80", "0.0.0.0:80"),
        ("[fe80::1%eth0]:80", "[fe80::1%eth0]:80"),
        ("127.0.0.1:0", "127.0.0.1:0"),
    ],
)
def test_listen_becomes_a_literal_and_the_id_stays_as_written(listen: str, literal: str) -> None:
    plan = only(Config(endpoints=[endpoint(listen)]))
    assert (plan.id, plan.listen) == (listen, literal)


def test_a_name_to_listen_on_is_resolved_once_with_the_first_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def resolve(name: str, *_: object, **__: object) -> list[object]:
        asked.append(name)
        return [
            (socket.AF_INET6, 1, 6, "", ("2001:db8::7", 0, 0, 0)),
            (socket.AF_INET, 1, 6, "", ("192.0.2.7", 0)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    made = plans(Config(endpoints=[endpoint("here.example:80"), endpoint("here.example:81")]))
    assert [plan.listen for plan in made] == ["[2001:db8::7]:80", "[2001:db8::7]:81"]
    assert [plan.id for plan in made] == ["here.example:80", "here.example:81"]
    assert asked == ["here.example"]


def test_every_name_that_has_no_address_is_told_with_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolve(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    config = Config(
        dns=Dns(nameservers=["9.9.9.9", "dns.invalid"]),
        endpoints=[endpoint(), endpoint("a.invalid:80"), endpoint(":82", through="b.invalid:9")],
    )
    with pytest.raises(ConfigError) as caught:
        plans(config)
    assert [(problem.key, problem.value) for problem in caught.value.problems] == [
        ("dns.nameservers[1]", "dns.invalid"),
        ("endpoints[1].listen", "a.invalid:80"),
        ("endpoints[2].through", "b.invalid:9"),
    ]
    assert "Name or service not known" in str(caught.value)


def test_a_range_of_ports_gives_a_plan_for_each() -> None:
    made = plans(Config(endpoints=[endpoint(":10-12", "h:20-22"), endpoint(":20-21", "h:5")]))
    assert [(plan.id, plan.listen, plan.remotes[0].port) for plan in made] == [
        (":10", "0.0.0.0:10", 20),
        (":11", "0.0.0.0:11", 21),
        (":12", "0.0.0.0:12", 22),
        (":20", "0.0.0.0:20", 5),
        (":21", "0.0.0.0:21", 5),
    ]


def test_the_last_port_can_be_in_a_range() -> None:
    made = plans(Config(endpoints=[endpoint("[::1]:65534-65535")]))
    assert [plan.listen for plan in made] == ["[::1]:65534", "[::1]:65535"]


def test_ids_are_names_and_unique() -> None:
    made = plans(
        Config(
            endpoints=[
                endpoint("127.0.0.1:0"),
                endpoint("127.0.0.1:0"),
                endpoint(":1", name="web"),
                endpoint(":2", name="web"),
                endpoint(":3-4", name="web"),
                endpoint(":5", name="web#2"),
            ]
        )
    )
    assert [plan.id for plan in made] == [
        "127.0.0.1:0",
        "127.0.0.1:0#2",
        "web",
        "web#2",
        "web:3",
        "web:4",
        "web#2#2",
    ]


@pytest.mark.parametrize(
    ("through", "address", "device"),
    [
        ("192.0.2.1", "192.0.2.1:0", None),
        ("192.0.2.1:7", "192.0.2.1:7", None),
        ("2001:db8::1", "[2001:db8::1]:0", None),
        ("[2001:db8::1]:7", "[2001:db8::1]:7", None),
        ("eth0", None, "eth0"),
    ],
)
def test_through_is_an_address_or_a_device(
    through: str, address: str | None, device: str | None
) -> None:
    plan = only(Config(endpoints=[endpoint(through=through)]))
    assert (plan.through, plan.through_interface) == (address, device)


def test_devices_arrive() -> None:
    plan = only(Config(endpoints=[endpoint(interface="wan0", listen_interface="lan0")]))
    assert (plan.interface, plan.listen_interface) == ("wan0", "lan0")


@pytest.mark.parametrize(
    ("remote", "host"), [("[2001:db8::1]:80", "2001:db8::1"), ("::1:80", "::1"), ("a.b:80", "a.b")]
)
def test_remotes_keep_their_names_and_lose_their_brackets(remote: str, host: str) -> None:
    plan = only(Config(endpoints=[endpoint(remote=remote)]))
    assert plan.remotes == (RemotePlan(host=host, port=80),)


def test_a_remote_that_is_not_used_does_not_make_the_plan_another() -> None:
    with_it = only(Config(endpoints=[endpoint(extra_remotes=["spare:1"])]))
    assert with_it == only(Config(endpoints=[endpoint()]))


BACKENDS = (RemotePlan(host="h", port=1), RemotePlan(host="b", port=2))


@pytest.mark.parametrize(
    ("more", "balance", "weights", "failover"),
    [
        ({"balance": "roundrobin"}, "roundrobin", (), False),
        ({"balance": "roundrobin: 4, 2"}, "roundrobin", (4, 2), False),
        ({"balance": "iphash: 3, 3"}, "iphash", (), False),
        ({"balance": "leastconn", "failover": True}, "leastconn", (), True),
        ({"balance": "random2: 0, 1"}, "random2", (0, 1), False),
        ({"balance": "failover"}, "failover", (), True),
        ({"failover": True}, "failover", (), True),
        ({"failover": True, "balance": "off: 1, 2"}, "failover", (), True),
    ],
)
def test_balancing(
    more: dict[str, Any], balance: str, weights: tuple[int, ...], failover: bool
) -> None:
    plan = only(Config(endpoints=[endpoint(extra_remotes=["b:2"], **more)]))
    assert plan.remotes == BACKENDS
    assert (plan.balance, plan.weights) == (balance, weights)
    assert plan.health == HealthPlan(failover=failover)


def test_a_hook_may_choose_among_all_remotes() -> None:
    plan = only(Config(endpoints=[endpoint(extra_remotes=["b:2"], hook="a.b:c")]))
    assert plan.remotes == BACKENDS
    assert plan.balance == "off"
    assert plan.hook == HookPlan(call="a.b:c")


def test_how_a_hook_is_asked() -> None:
    asked = endpoint(hook="a:b", hook_first_bytes=5, hook_timeout=0.5, hook_on_failure="allow")
    assert only(Config(endpoints=[asked])).hook == HookPlan(
        call="a:b", first_bytes=5, timeout=0.5, on_failure="allow"
    )


def test_the_file_of_a_hook_has_to_be_there(tmp_path: Path) -> None:
    path = tmp_path / "hooks.py"
    with pytest.raises(ConfigError, match="does not exist") as caught:
        plans(Config(endpoints=[endpoint(hook=f"{path}:f")]))
    assert caught.value.problems[0].key == "endpoints[0].hook"
    path.write_text("")
    assert only(Config(endpoints=[endpoint(hook=str(path))])).hook == HookPlan(
        call=f"{path}:decide"
    )


def test_all_remotes_have_the_port_of_the_listener() -> None:
    routed = [{"sni": "a", "remote": "r:50-51", "extra_remotes": ["s:9"]}]
    made = plans(
        Config(
            endpoints=[
                endpoint(
                    ":10-11", "h:20-21", extra_remotes=["b:30-31"], balance="iphash", route=routed
                )
            ]
        )
    )
    assert [[remote.port for remote in plan.remotes] for plan in made] == [[20, 30], [21, 31]]
    rules = [plan.routing.rules[0].remotes for plan in made if plan.routing is not None]
    assert [[remote.port for remote in remotes] for remotes in rules] == [[50, 9], [51, 9]]


def test_routes_are_rules_in_their_order() -> None:
    routed = endpoint(
        route=[
            {"sni": ["A.example", "*.a.example"], "remote": "a:1"},
            {"host": "b", "bytes": "SSH-", "remote": "[::1]:2"},
        ],
        route_timeout=1.5,
    )
    first, second = (RemotePlan(host="a", port=1),), (RemotePlan(host="::1", port=2),)
    assert only(Config(endpoints=[routed])).routing == RoutingPlan(
        rules=(
            RulePlan(kind="sni", pattern="a.example", remotes=first),
            RulePlan(kind="sni", pattern="*.a.example", remotes=first),
            RulePlan(kind="host", pattern="b", remotes=second),
            RulePlan(kind="bytes", pattern="5353482d", remotes=second),
        ),
        timeout=1.5,
    )


def test_what_else_an_endpoint_says_of_its_flows() -> None:
    plan = only(
        Config(
            network=Network(send_proxy=True, max_rate_up=5, max_fails=7, fail_timeout=500),
            endpoints=[
                endpoint(
                    allow=["10.0.0.0/8"],
                    deny=["10.1.2.3"],
                    quota="1kB",
                    failover=True,
                    network=Network(send_proxy_version=1),
                )
            ],
        )
    )
    assert (plan.allow, plan.deny, plan.quota) == (("10.0.0.0/8",), ("10.1.2.3/32",), 1000)
    assert plan.proxy == ProxyProtocolPlan(send=1)
    assert plan.rates == RatesPlan(endpoint_up=5)
    assert plan.health == HealthPlan(failover=True, max_fails=7, fail_timeout=0.5)


def test_transports() -> None:
    plan = only(
        Config(
            network=Network(handshake_timeout=3),
            endpoints=[
                endpoint(
                    listen_transport="ws;host=a;path=/b",
                    remote_transport={"tls": {"sni": "c"}},
                )
            ],
        )
    )
    assert plan.listen_transport == ListenTransportPlan(
        ws=WebSocketPlan(host="a", path="/b"), handshake_timeout=3.0
    )
    assert plan.remote_transport == RemoteTransportPlan(
        tls=TlsSendPlan(sni="c"), handshake_timeout=3.0
    )


def test_files_of_a_transport_have_to_be_there(tmp_path: Path) -> None:
    missing = tmp_path / "a.pem"
    other = tmp_path / "b.key"
    other.write_text("no key")
    table = {"tls": {"certificates": [{"cert": str(missing), "key": str(other)}]}}
    text = f"tls;sni=a;ca={missing}"
    with pytest.raises(ConfigError) as caught:
        plans(Config(endpoints=[endpoint(listen_transport=table, remote_transport=text)]))
    assert [str(problem) for problem in caught.value.problems] == [
        (
            f"endpoints[0].listen_transport.tls.certificates[0].cert = {shown(missing)}: "
            "the file does not exist"
        ),
        (
            f"endpoints[0].listen_transport.tls.certificates[0].key = {shown(other)}: "
            "the file holds no private key"
        ),
        f"endpoints[0].remote_transport = {shown(text)}: ca: {missing} does not exist",
    ]


def shown(value: object) -> str:
    text = f'"{value}"'
    return text if len(text) <= 80 else f"{text[:77]}..."


def test_name_servers_behind_tls_keep_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET6, 1, 6, "", ("2001:db8::53", 0, 0, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    servers = ["tls://192.0.2.53", "https://dns.example/q", "tls://192.0.2.53:8853#dns.example"]
    plan = only(Config(dns=Dns(nameservers=servers), endpoints=[endpoint()]))
    assert plan.resolver.nameservers == (
        "tls://192.0.2.53:853#192.0.2.53",
        "https://[2001:db8::53]:443/q#dns.example",
        "tls://192.0.2.53:8853#dns.example",
    )


def test_all_endpoints_share_one_resolver_plan() -> None:
    dns = Dns(
        mode="ipv6_only",
        protocol="tcp",
        nameservers=["9.9.9.9", "[2620:fe::fe]:5353"],
        min_ttl=1,
        max_ttl=2,
        cache_size=3,
    )
    made = plans(Config(dns=dns, endpoints=[endpoint(":1"), endpoint(":2")]))
    assert made[0].resolver == ResolverPlan(
        mode="ipv6_only",
        protocol="tcp",
        nameservers=("9.9.9.9:53", "[2620:fe::fe]:5353"),
        min_ttl=1,
        max_ttl=2,
        cache_size=3,
    )
    assert made[0].resolver is made[1].resolver


def test_limits_for_all_endpoints_together() -> None:
    limits = Limits(
        max_connections=1, max_connection_rate=2, max_connections_per_client=3, max_associations=4
    )
    assert overall_limits(Config(limits=limits)) == LimitsPlan(
        connections=1, connection_rate=2, connections_per_client=3, associations=4
    )


def test_one_address_can_belong_to_one_endpoint_of_each_protocol() -> None:
    udp = Network(no_tcp=True, use_udp=True)
    tcp_and_udp = [endpoint("*:53"), endpoint("0.0.0.0:53", network=udp)]
    assert len(plans(Config(endpoints=tcp_and_udp))) == 2
    with pytest.raises(ConfigError) as caught:
        plans(Config(endpoints=[*tcp_and_udp, endpoint("0.0.0.0:50-53", name="late")]))
    (problem,) = caught.value.problems
    assert problem.key == "endpoints[2].listen"
    assert "TCP on 0.0.0.0:53 belongs to endpoints[0] (*:53) already" in problem.message


def test_two_thousand_endpoints_are_planned_in_no_time() -> None:
    config = Config(
        network=Network(use_udp=True),
        endpoints=[
            endpoint(f"127.0.0.1:{port}", "h:1", network=Network(tcp_timeout=3))
            for port in range(10_000, 12_000)
        ],
    )
    began = time.process_time()
    assert len(plans(config)) == 2000
    assert time.process_time() - began < 0.2
