"""Every key has the type, the range and the default it should have, also when built in Python."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from qanat.config import models
from qanat.config.models import (
    ALIASES,
    MODELS,
    PART,
    Config,
    Dns,
    Endpoint,
    Limits,
    Log,
    Model,
    Network,
)
from qanat.errors import ConfigError
from qanat.plan import DnsMode, DnsProtocol, ResolverPlan, TcpPlan, UdpPlan

__all__: list[str] = []

GOOD = {"listen": "0.0.0.0:5000", "remote": "example.com:80"}


def refused(model: type[Model], **values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        model(**values)
    return str(caught.value)


def test_defaults_are_the_documented_ones() -> None:
    network = Network()
    assert (network.no_tcp, network.use_udp, network.ipv6_only) == (False, False, False)
    assert (network.tcp_timeout, network.udp_timeout) == (5, 30)
    assert (network.tcp_keepalive, network.tcp_keepalive_probe) == (15, 3)
    assert (network.send_mptcp, network.accept_mptcp) == (False, False)
    assert (network.send_proxy, network.send_proxy_version) == (False, 2)
    assert (network.accept_proxy, network.accept_proxy_timeout) == (False, 5)
    assert (network.idle_timeout, network.linger) == (0, 30)
    assert (network.max_connections, network.max_associations) == (0, 4096)
    dns = Dns()
    assert (dns.mode, dns.protocol) == ("ipv4_and_ipv6", "tcp_and_udp")
    assert (dns.min_ttl, dns.max_ttl, dns.nameservers) == (0, 86_400, [])
    assert Limits().max_associations == 16_384
    assert (Log().output, Log().format) == ("stdout", "text")
    config = Config()
    assert (config.workers, config.drain, config.control, config.metrics) == (0, 10, True, None)


def test_defaults_are_those_of_the_plans() -> None:
    network, dns, tcp, resolver = Network(), Dns(), TcpPlan(), ResolverPlan()
    assert network.tcp_timeout == tcp.connect_timeout
    assert network.tcp_keepalive == tcp.keepalive
    assert network.tcp_keepalive_probe == tcp.keepalive_probes
    assert network.idle_timeout == tcp.idle_timeout
    assert network.linger == tcp.linger
    assert network.udp_timeout == UdpPlan().timeout
    for name in ("mode", "protocol", "min_ttl", "max_ttl", "cache_size"):
        assert getattr(dns, name) == getattr(resolver, name)
    assert set(get_args(models.DnsMode)) == set(get_args(DnsMode))
    assert set(get_args(models.DnsProtocol)) == set(get_args(DnsProtocol))


def test_an_endpoint_takes_a_dictionary_for_its_network() -> None:
    made = Endpoint.model_validate(GOOD | {"network": {"use_udp": True}})
    assert made.network == Network(use_udp=True)
    assert made == Endpoint(listen=GOOD["listen"], remote=GOOD["remote"], network=made.network)


def test_an_endpoint_knows_its_addresses() -> None:
    endpoint = Endpoint(listen=":5000-5001", remote="[::1]:80", through="eth0")
    assert str(endpoint.listen_address) == "0.0.0.0:5000-5001"
    assert str(endpoint.remote_address) == "[::1]:80"
    assert str(endpoint.through_address) == "eth0"
    assert Endpoint(listen=":1", remote="a:1").through_address is None


def test_wrong_values_in_python_are_told_as_in_files() -> None:
    text = refused(Endpoint, listen="nowhere", remote=80, speed=9)
    assert text.splitlines() == [
        'listen = "nowhere": no port (host:port, as 0.0.0.0:5000, [::]:5000 or 0.0.0.0:5000-5010)',
        'remote = 80: must be text (as "example.com:80")',
        "speed: unknown key",
    ]


def test_nested_validation_collects_and_leaves_pydantics_error() -> None:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate({"endpoints": [{}, {"listen": 5}], "workers": "x"})
    assert caught.value.error_count() == 5


def test_models_do_not_change() -> None:
    endpoint = Endpoint.model_validate(GOOD)
    with pytest.raises(ValidationError):
        setattr(endpoint, "listen", ":1")  # noqa: B010  # mypy would not let us try


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("tcp_timeout", 0, 2**32 - 1),
        ("udp_timeout", 0, 2**32 - 1),
        ("accept_proxy_timeout", 0, 2**32 - 1),
        ("tcp_keepalive", 0, 32_767),
        ("tcp_keepalive_probe", 1, 127),
        ("send_proxy_version", 1, 2),
        ("max_connections", 0, 2**32 - 1),
        ("max_connection_rate", 0, 2**32 - 1),
        ("max_connections_per_client", 0, 2**32 - 1),
        ("max_associations", 0, 2**32 - 1),
    ],
)
def test_whole_numbers_have_bounds(key: str, least: int, most: int) -> None:
    for number in (least, most):
        assert getattr(Network.model_validate({key: number}), key) == number
    for wrong in (least - 1, most + 1, "5", 5.0, True, None, [5]):
        with pytest.raises(ValidationError):
            Network.model_validate({key: wrong})


@pytest.mark.parametrize("key", ["idle_timeout", "linger"])
def test_our_seconds_may_have_fractions(key: str) -> None:
    assert getattr(Network.model_validate({key: 0.5}), key) == 0.5
    assert getattr(Network.model_validate({key: 5}), key) == 5
    for wrong in (-0.1, float("nan"), float("inf"), 2.0**33, "5", True):
        with pytest.raises(ValidationError):
            Network.model_validate({key: wrong})


FLAGS = ["no_tcp", "use_udp", "ipv6_only", "send_mptcp", "accept_mptcp"]


@pytest.mark.parametrize("key", FLAGS)
def test_flags_are_true_or_false(key: str) -> None:
    assert getattr(Network.model_validate({key: True}), key) is True
    for wrong in (1, "true", None):
        with pytest.raises(ValidationError):
            Network.model_validate({key: wrong})


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (Log, {"level": "Info"}),
        (Log, {"output": ""}),
        (Log, {"format": "xml"}),
        (Dns, {"mode": "ipv4"}),
        (Dns, {"protocol": "tls"}),
        (Dns, {"nameservers": []}),
        (Dns, {"nameservers": ["x y"]}),
        (Dns, {"nameservers": "192.0.2.1"}),
        (Dns, {"min_ttl": 6, "max_ttl": 5}),
        (Dns, {"min_ttl": 86_401}),
        (Dns, {"cache_size": -1}),
        (Config, {"workers": 1025}),
        (Config, {"drain": -1}),
        (Config, {"pipe_page": 0}),
        (Config, {"metrics": "127.0.0.1"}),
        (Config, {"metrics": ":9000-9001"}),
        (Config, {"control": 1}),
        (Config, {"control": ""}),
        (Endpoint, GOOD | {"name": " a"}),
        (Endpoint, GOOD | {"name": ""}),
        (Endpoint, GOOD | {"name": "a\nb"}),
        (Endpoint, GOOD | {"name": "a" * 101}),
        (Endpoint, GOOD | {"through": ""}),
        (Endpoint, GOOD | {"through": "1.2.3"}),
        (Endpoint, GOOD | {"interface": "a/b"}),
        (Endpoint, GOOD | {"listen_interface": ""}),
        (Endpoint, GOOD | {"extra_remotes": ["x"]}),
        (Endpoint, GOOD | {"listen": ":10-12", "remote": "a:10-11"}),
        (Endpoint, GOOD | {"listen": ":10", "remote": "a:10-11"}),
        (Endpoint, GOOD | {"listen": ":10", "extra_remotes": ["a:10-11"]}),
        (Endpoint, GOOD | {"balance": "random"}),
        (Endpoint, GOOD | {"balance": ": 1, 2"}),
    ],
)
def test_refuses(model: type[Model], values: dict[str, Any]) -> None:
    assert refused(model, **values)


def test_min_ttl_is_not_held_against_a_max_ttl_that_another_file_may_give() -> None:
    assert Config.model_validate({"dns": {"min_ttl": 90_000}}, context=PART)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (Endpoint, GOOD | {"listen_transport": "", "remote_transport": " "}),
        (Endpoint, GOOD | {"balance": "off"}),
        (Endpoint, GOOD | {"balance": "off: 1, 2", "extra_remotes": ["b:1"]}),
        (Endpoint, GOOD | {"failover": False, "route": {}, "allow": [], "deny": []}),
        (Network, {"send_proxy": False, "accept_proxy": False, "send_proxy_version": 1}),
        (Network, {"send_mptcp": True, "accept_mptcp": True}),
    ],
)
def test_what_asks_for_nothing_is_accepted(model: type[Model], values: dict[str, Any]) -> None:
    assert model(**values)


def test_aliases_name_keys() -> None:
    for kind, names in ALIASES.items():
        for alias, name in names.items():
            assert name in MODELS[kind].model_fields
            assert alias not in MODELS[kind].model_fields
