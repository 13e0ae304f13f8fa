"""The parts of a plan that come of an endpoint's network table."""

from __future__ import annotations

from typing import Any

import pytest

from qanat.config.models import Check, Network
from qanat.plan import (
    CheckPlan,
    HealthPlan,
    HttpCheckPlan,
    LimitsPlan,
    ProxyProtocolPlan,
    RatesPlan,
    TcpPlan,
    UdpCheckPlan,
    UdpPlan,
)
from qanat.relay.network_plans import Carried, carried, networks

__all__: list[str] = []


def of(network: Network) -> Carried:
    return carried({name: getattr(network, name) for name in Network.model_fields})


def test_an_empty_table_gives_the_defaults_of_plans() -> None:
    plain = of(Network())
    assert plain.tcp == TcpPlan()
    assert plain.udp is None
    assert plain.limits == LimitsPlan(associations=4096)
    assert plain.proxy == ProxyProtocolPlan()
    assert plain.rates == RatesPlan()
    assert plain.checks == HealthPlan()
    assert plain.health == HealthPlan(failover=True)
    assert plain.handshake_timeout == 10


def test_protocols() -> None:
    both = of(Network(use_udp=True, udp_timeout=7))
    assert (both.tcp, both.udp) == (TcpPlan(), UdpPlan(timeout=7.0))
    assert of(Network(no_tcp=True)).tcp is None


@pytest.mark.parametrize(
    ("values", "plan"),
    [
        ({"send_proxy": True}, ProxyProtocolPlan(send=2)),
        ({"send_proxy": True, "send_proxy_version": 1}, ProxyProtocolPlan(send=1)),
        ({"send_proxy_version": 1}, ProxyProtocolPlan()),
        ({"send_proxy_udp": True}, ProxyProtocolPlan(send_udp=True)),
        ({"accept_proxy": True}, ProxyProtocolPlan(accept="required")),
        (
            {"accept_proxy": "optional", "accept_proxy_timeout": 0, "send_proxy": True},
            ProxyProtocolPlan(accept="optional", accept_timeout=0.0, send=2),
        ),
        (
            {"accept_proxy": True, "accept_proxy_from": ["10.0.0.0/8", "::ffff:1.2.3.4"]},
            ProxyProtocolPlan(accept="required", trusted=("10.0.0.0/8", "1.2.3.4/32")),
        ),
        ({"accept_proxy_from": ["10.0.0.0/8"], "accept_proxy_timeout": 9}, ProxyProtocolPlan()),
    ],
)
def test_the_proxy_protocol(values: dict[str, Any], plan: ProxyProtocolPlan) -> None:
    assert of(Network(**values)).proxy == plan


def test_every_rate_has_its_own_place() -> None:
    rates = of(
        Network(
            max_rate_up=1,
            max_rate_down=2,
            max_rate_up_per_client=3,
            max_rate_down_per_client=4,
            max_rate_up_per_flow=5,
            max_rate_down_per_flow=6,
        )
    ).rates
    assert rates == RatesPlan(
        endpoint_up=1, endpoint_down=2, client_up=3, client_down=4, flow_up=5, flow_down=6
    )


def test_the_time_of_failures_is_written_in_milliseconds() -> None:
    health = of(Network(max_fails=5, fail_timeout=1500)).health
    assert (health.failover, health.max_fails, health.fail_timeout) == (True, 5, 1.5)


def test_what_only_failover_uses_does_not_change_other_plans() -> None:
    assert of(Network(max_fails=5, fail_timeout=1500)).checks == HealthPlan()


@pytest.mark.parametrize(
    ("values", "plan"),
    [
        (None, None),
        ({"kind": "off"}, None),
        ({}, CheckPlan()),
        (
            {"kind": "tls", "interval": 1, "timeout": 0.5, "rise": 4, "fall": 5},
            CheckPlan(kind="tls", interval=1.0, timeout=0.5, rise=4, fall=5),
        ),
        ({"kind": "http"}, CheckPlan(kind="http", http=HttpCheckPlan())),
        (
            {"kind": "http", "path": "/up", "host": "a", "status": [200]},
            CheckPlan(kind="http", http=HttpCheckPlan(path="/up", host="a", status=(200,))),
        ),
        ({"kind": "udp", "send": "ping"}, CheckPlan(kind="udp", udp=UdpCheckPlan(send="70696e67"))),
        (
            {"kind": "udp", "send": "0x00", "expect": "0xFF"},
            CheckPlan(kind="udp", udp=UdpCheckPlan(send="00", expect="ff")),
        ),
    ],
)
def test_checks(values: dict[str, Any] | None, plan: CheckPlan | None) -> None:
    network = of(Network(check=None if values is None else Check(**values)))
    assert network.checks.check == network.health.check == plan


def test_networks_have_one_form() -> None:
    assert networks(["10.0.0.0/8", "2001:DB8:0::/32", "1.2.3.4"]) == (
        "10.0.0.0/8",
        "2001:db8::/32",
        "1.2.3.4/32",
    )
