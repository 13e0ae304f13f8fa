"""What the engine can't do yet is refused, and only where it is asked for."""

from typing import Any

import pytest

from qanat.config import unbuilt
from qanat.config.models import Dns, Endpoint, Model, Network
from qanat.errors import ConfigError

__all__: list[str] = []

GOOD = {"listen": "0.0.0.0:5000", "remote": "example.com:80"}

ASKING: dict[str, list[tuple[type[Model], dict[str, Any]]]] = {
    "balance": [(Endpoint, GOOD | {"balance": "iphash"})],
    "failover": [(Endpoint, GOOD | {"failover": True})],
    "check": [(Network, {"check": {"kind": "tcp"}})],
    "route": [(Endpoint, GOOD | {"route": {"a.example": "a:1"}})],
    "access": [
        (Endpoint, GOOD | {"allow": ["10.0.0.0/8"]}),
        (Endpoint, GOOD | {"deny": ["10.0.0.0/8"]}),
    ],
    "rates": [(Network, {"max_rate_up": 1}), (Network, {"max_rate_down_per_flow": "1MB/s"})],
    "quota": [(Endpoint, GOOD | {"quota": "1GB"})],
    "hooks": [(Endpoint, GOOD | {"hook": "a:b"})],
    "ws": [
        (Endpoint, GOOD | {"listen_transport": "ws;host=unbuilt;path=/"}),
        (Endpoint, GOOD | {"remote_transport": {"ws": {"host": "a", "path": "/"}}}),
    ],
    "tls": [
        (Endpoint, GOOD | {"listen_transport": "tls;servername=unbuilt"}),
        (Endpoint, GOOD | {"remote_transport": {"tls": {"sni": "a"}}}),
    ],
    "uot": [
        (Endpoint, GOOD | {"listen_transport": "uot;;"}),
        (Endpoint, GOOD | {"remote_transport": {"uot": True}}),
    ],
    "proxy_in": [
        (Network, {"accept_proxy": "optional"}),
        (Network, {"accept_proxy_from": ["10.0.0.0/8"]}),
    ],
    "proxy_out": [(Network, {"send_proxy": True})],
    "proxy_udp": [(Network, {"send_proxy_udp": True})],
    "encrypted_dns": [(Dns, {"nameservers": ["tls://192.0.2.1"]})],
}
CASES = [(feature, *asked) for feature, all_asked in ASKING.items() for asked in all_asked]


@pytest.mark.parametrize(("feature", "model", "values"), CASES)
def test_refused_while_the_table_has_it(
    monkeypatch: pytest.MonkeyPatch, feature: str, model: type[Model], values: dict[str, Any]
) -> None:
    monkeypatch.setattr(unbuilt, "UNBUILT", {feature: "that is"})
    with pytest.raises(ConfigError, match="that is not yet supported"):
        model(**values)


@pytest.mark.parametrize(("feature", "model", "values"), CASES)
def test_accepted_when_it_is_built(
    feature: str, model: type[Model], values: dict[str, Any]
) -> None:
    assert model(**values)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (Endpoint, GOOD | {"listen_transport": "", "remote_transport": " ; "}),
        (Endpoint, GOOD | {"balance": "off: 1, 2", "extra_remotes": ["b:1"]}),
        (Endpoint, GOOD | {"failover": False, "route": {}, "allow": [], "deny": [], "quota": 0}),
        (Network, {"send_proxy": False, "accept_proxy": False, "send_proxy_version": 1}),
        (Network, {"send_proxy_udp": False, "max_rate_up": 0, "check": {"kind": "off"}}),
        (Network, {"max_fails": 3, "fail_timeout": 1000}),
        (Dns, {"nameservers": ["192.0.2.1"]}),
    ],
)
def test_what_asks_for_nothing_is_always_accepted(
    monkeypatch: pytest.MonkeyPatch, model: type[Model], values: dict[str, Any]
) -> None:
    monkeypatch.setattr(unbuilt, "UNBUILT", dict.fromkeys(ASKING, "that is"))
    assert model(**values)
