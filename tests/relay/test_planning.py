from __future__ import annotations

import socket
import time

import pytest

from qanat.config.models import Config, Dns, Endpoint, Limits, Network
from qanat.errors import ConfigError
from qanat.plan import EndpointPlan, LimitsPlan, RemotePlan, ResolverPlan, TcpPlan, UdpPlan
from qanat.relay.planning import overall_limits, plans


def only(config: Config) -> EndpointPlan:
    (plan,) = plans(config)
    return plan


def endpoint(listen: str = "127.0.0.1:80", remote: str = "h:1", **other: object) -> Endpoint:
    return Endpoint(listen=listen, remote=remote, **other)  # type: ignore[arg-type]


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
