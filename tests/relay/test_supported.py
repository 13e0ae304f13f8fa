"""What a configuration may ask for the engine does, and what it can't do yet is refused before.

Each thing that a plan can hold is configured, planned and given to the native engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qanat import _engine
from qanat.config.load import load
from qanat.config.models import Config, Endpoint, Network
from qanat.config.unbuilt import UNBUILT
from qanat.errors import ConfigError
from qanat.plan import EndpointPlan, LimitsPlan, to_json
from qanat.relay.planning import plans
from tests.support.certificates import Authority

__all__: list[str] = []

WAYS: dict[str, dict[str, Any]] = {
    "balance": {"balance": "roundrobin: 2, 1", "extra_remotes": ["127.0.0.1:2"]},
    "failover": {"failover": True, "extra_remotes": ["127.0.0.1:2"]},
    "check": {"network": {"check": {"kind": "http", "interval": 60}}},
    "route": {"route": {"a.example": "127.0.0.1:2"}},
    "access": {"allow": ["127.0.0.0/8"], "deny": ["::1"]},
    "rates": {"network": {"max_rate_up": "1MB/s", "max_rate_down_per_client": 5}},
    "quota": {"quota": "1GB"},
    "hooks": {"hook": "module:function"},
    "ws": {
        "listen_transport": "ws;host=a;path=/",
        "remote_transport": "ws;host=a;path=/;mask=random",
    },
    "tls": {"listen_transport": "tls;servername=a", "remote_transport": "tls;sni=a;insecure"},
    "uot": {"listen_transport": "uot", "remote_transport": "uot"},
    "uot_towards_targets": {
        "remote_transport": "tls;sni=a;uot",
        "network": {"use_udp": True, "no_tcp": True},
    },
    "proxy_in": {"network": {"accept_proxy": True, "accept_proxy_from": ["10.0.0.0/8"]}},
    "proxy_out": {"network": {"send_proxy": True, "send_proxy_version": 1}},
    "proxy_udp": {"network": {"send_proxy_udp": True, "use_udp": True, "no_tcp": True}},
}
"""By the names of the table of what is not built, and some more."""


@pytest.fixture
def engine() -> Iterator[_engine.Engine]:
    made = _engine.Engine(workers=1)
    yield made
    made.shutdown()


def planned(**more: Any) -> EndpointPlan:
    endpoint = Endpoint(listen="127.0.0.1:0", remote="127.0.0.1:1", **more)
    (plan,) = plans(Config(endpoints=[endpoint]))
    return plan


def bound(engine: _engine.Engine, plan: EndpointPlan) -> str | None:
    """Where it listens."""
    _, tcp, udp = engine.bind(engine.open_group(to_json(LimitsPlan())), to_json(plan))
    return tcp or udp


def network(values: dict[str, Any]) -> dict[str, Any]:
    own = {"network": Network.model_validate(values["network"])} if "network" in values else {}
    return values | own


def test_everything_that_is_not_built_has_an_example_here() -> None:
    assert UNBUILT.keys() - {"encrypted_dns"} <= WAYS.keys()


@pytest.mark.parametrize("feature", sorted(WAYS.keys() - UNBUILT.keys()))
def test_the_engine_takes_what_the_configuration_lets_through(
    engine: _engine.Engine, feature: str
) -> None:
    assert bound(engine, planned(**network(WAYS[feature])))


def test_a_plain_plan_asks_for_none_of_it() -> None:
    plain = EndpointPlan(
        id="127.0.0.1:0",
        listen="127.0.0.1:0",
        remotes=planned().remotes,
        limits=planned().limits,
    )
    assert planned() == plain


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"hook": "libhook.so"}, "a library with realm's binary hook"),
        ({"listen_transport": "WS;host=a;path=/"}, "did you mean ws?"),
        ({"balance": "roundrobin: 1"}, "1 weight for 2 remotes"),
    ],
)
def test_what_can_not_be_is_refused_before_the_engine_sees_it(
    more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(extra_remotes=["127.0.0.1:2"], **more)
    assert message in str(caught.value)


def test_certificates_from_files_reach_the_engine(engine: _engine.Engine, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("a.example", "DNS:a.example")
    listening = {"tls": {"cert": str(cert), "key": str(key), "client_ca": str(authority.cert)}}
    sending = f"tls;sni=a.example;ca={authority.cert};cert={cert};key={key};alpn=h2"
    assert bound(engine, planned(listen_transport=listening, remote_transport=sending))


NAMES = st.sampled_from(["a.example", "A-b.c", "_x.y", "b\u00fccher.example", "192.0.2.1", "[::1]"])
WRAPPED: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"tls": st.fixed_dictionaries({"sni": NAMES, "insecure": st.booleans()})},
    optional={
        "ws": st.fixed_dictionaries(
            {"host": st.sampled_from(["a", "a:1"]), "path": st.sampled_from(["/", "x?y=z"])},
            optional={"mask": st.sampled_from(["zero", "random"])},
        )
    },
)
CHECKS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["off", "tcp", "tls", "http", "udp"])},
    optional={
        "interval": st.sampled_from([0.001, 1, 86_400]),
        "timeout": st.sampled_from([0.001, 86_400]),
        "rise": st.sampled_from([1, 100]),
        "fall": st.sampled_from([1, 100]),
        "send": st.sampled_from(["ping", "0x00"]),
        "path": st.sampled_from(["/", "/a?b"]),
        "host": st.just("a:1"),
        "status": st.just([200, 599]),
    },
)
NETWORKS = st.fixed_dictionaries(
    {},
    optional={
        "use_udp": st.booleans(),
        "no_tcp": st.booleans(),
        "check": CHECKS,
        "max_rate_up": st.sampled_from([1, "100Gbit/s", 2**63 - 1]),
        "max_rate_down_per_flow": st.sampled_from([1, 2**63 - 1]),
        "accept_proxy": st.sampled_from([True, "optional"]),
        "accept_proxy_from": st.just(["::/0", "10.0.0.0/8", "::ffff:1.2.3.4"]),
        "accept_proxy_timeout": st.sampled_from([0, 2**32 - 1]),
        "send_proxy": st.booleans(),
        "send_proxy_udp": st.booleans(),
        "handshake_timeout": st.sampled_from([0, 0.001, 2**32 - 1]),
        "idle_timeout": st.sampled_from([0, 0.001, 2**32 - 1]),
        "max_fails": st.sampled_from([0, 2**32 - 1]),
        "fail_timeout": st.sampled_from([0, 1, 2**32 - 1]),
    },
)
ROUTES = st.fixed_dictionaries(
    {"remote": st.just("127.0.0.1:3")},
    optional={
        "sni": st.sampled_from(["a.example", "*.b\u00fccher.example", ["x", "*.y"]]),
        "host": st.sampled_from(["a.example", "192.0.2.1", "::1"]),
        "bytes": st.sampled_from(["SSH-", "0x" + "00" * 256, "\u00fc"]),
    },
)
ENDPOINTS = st.fixed_dictionaries(
    {"network": NETWORKS},
    optional={
        "extra_remotes": st.just(["127.0.0.1:2"]),
        "balance": st.sampled_from(["roundrobin: 255, 0", "iphash", "random2: 1, 2", "failover"]),
        "failover": st.booleans(),
        "listen_transport": st.sampled_from(["tls;servername=a", "ws;host=a;path=/", "uot"]),
        "remote_transport": WRAPPED | st.just("uot"),
        "route": st.lists(ROUTES, max_size=2),
        "route_timeout": st.sampled_from([0, 0.001, 2**32 - 1]),
        "allow": st.just(["0.0.0.0/0", "2001:db8::/32"]),
        "quota": st.sampled_from([1, "9000TB", 2**63 - 1]),
        "hook": st.just("module:function"),
        "hook_first_bytes": st.sampled_from([0, 65_536]),
        "hook_timeout": st.sampled_from([0, 0.001, 2**32 - 1]),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(said=ENDPOINTS)
def test_whatever_a_configuration_may_say_the_engine_takes(
    engine: _engine.Engine, said: dict[str, Any]
) -> None:
    table = {"listen": "127.0.0.1:0", "remote": "127.0.0.1:1"} | said
    try:
        loaded = load(text=json.dumps({"endpoints": [table]}))
    except ConfigError:
        return
    group = engine.open_group(to_json(LimitsPlan()))
    for plan in plans(loaded.config):
        engine.bind(group, to_json(plan))
    engine.close_group(group)
