"""Kinds of values that are not tested with the key they belong to."""

from typing import Any

import pytest

from qanat.config.models import Dns, Endpoint, Network
from qanat.config.quantities import LARGEST
from qanat.errors import ConfigError

__all__: list[str] = []

GOOD = {"listen": ":1", "remote": "a:1"}


def refused(model: Any, **values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        model(**values)
    return str(caught.value)


@pytest.mark.parametrize("value", [True, False, "optional"])
def test_accept_proxy(value: object) -> None:
    assert Network.model_validate({"accept_proxy": value}).accept_proxy is value


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("true", "(true, without quotes)"),
        ("Optional", "(did you mean optional?)"),
        (1, ""),
        (0, ""),
        (None, ""),
        ([], ""),
    ],
)
def test_what_accept_proxy_is_not(value: object, hint: str) -> None:
    message = refused(Network, accept_proxy=value)
    assert "must be one of true, false or optional" in message
    assert message.endswith(hint)


@pytest.mark.parametrize("key", [name for name in Network.model_fields if "rate_" in name])
def test_rates(key: str) -> None:
    if key == "max_connection_rate":
        return
    assert getattr(Network.model_validate({key: "100Mbit/s"}), key) == 12_500_000
    assert getattr(Network.model_validate({key: 5}), key) == 5
    for wrong in (-1, 1.5, True, LARGEST + 1, "fast", "10M", None):
        assert refused(Network, **{key: wrong})


def test_quotas() -> None:
    assert Endpoint.model_validate(GOOD | {"quota": "1.5TiB"}).quota == 3 * 2**39
    assert "is not a unit" in refused(Endpoint, **GOOD, quota="1.5T")
    assert "must be a whole number" in refused(Endpoint, **GOOD, quota=1.5)
    assert "must be a whole number" in refused(Endpoint, **GOOD, quota=True)


def test_access_lists() -> None:
    made = Endpoint.model_validate(GOOD | {"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"]})
    assert (made.allow, made.deny) == (["10.0.0.0/8"], ["10.1.0.0/16"])
    message = refused(Endpoint, **GOOD, deny=["10.0.0.0/8", "10.0.0.1/8"])
    assert message.startswith('deny[1] = "10.0.0.1/8": 10.0.0.1 is one address inside')
    assert refused(Endpoint, **GOOD, allow="10.0.0.0/8").endswith('(["10.0.0.0/8"])')


def test_hooks() -> None:
    made = Endpoint.model_validate(
        GOOD | {"hook": "a:b", "hook_first_bytes": 16, "hook_timeout": 0.5}
    )
    assert (made.hook, made.hook_first_bytes, made.hook_timeout) == ("a:b", 16, 0.5)
    assert "must be one of refuse or allow" in refused(Endpoint, **GOOD, hook_on_failure="pass")
    assert "from 0 to 65536" in refused(Endpoint, **GOOD, hook_first_bytes=65_537)


def test_balance_fits_the_remotes() -> None:
    two = GOOD | {"extra_remotes": ["b:1"]}
    assert Endpoint.model_validate(two | {"balance": "iphash: 1, 0"}).balancing.weights == (1, 0)
    assert refused(Endpoint, **two, balance="iphash: 1, 0, 3") == (
        'balance = "iphash: 1, 0, 3": 3 weights for 2 remotes (one for remote and one for each of '
        "extra_remotes, or none at all)"
    )


def test_name_servers() -> None:
    servers = ["192.0.2.1", "tls://192.0.2.1", "https://dns.example/dns-query"]
    assert Dns(nameservers=servers).nameservers == servers
    assert "are not asked by quic://" in refused(Dns, nameservers=["quic://192.0.2.1"])
