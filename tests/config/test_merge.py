"""Which of several values counts: files, endpoints, the command line."""

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.config.merge import Overrides, apply_overrides, combine, effective
from qanat.config.models import Config, Endpoint, Network
from qanat.errors import ConfigError

__all__: list[str] = []


def config(**values: Any) -> Config:
    return Config.model_validate(values)


def endpoint(port: int = 1, **network: Any) -> dict[str, Any]:
    return {"listen": f":{port}", "remote": "a:1", "network": network}


def seen(config: Config, key: str) -> list[Any]:
    """The value of a key of ``network`` in each endpoint, as it is run."""
    return [getattr(each.network, key) for each in effective(config).endpoints]


NETWORKS = st.fixed_dictionaries(
    {},
    optional={
        "use_udp": st.booleans(),
        "no_tcp": st.booleans(),
        "tcp_timeout": st.integers(0, 99),
        "udp_timeout": st.integers(0, 99),
        "linger": st.floats(0, 99),
        "send_mptcp": st.booleans(),
        "tcp_keepalive_probe": st.integers(1, 127),
    },
)


@given(NETWORKS, NETWORKS, NETWORKS)
def test_precedence(own: dict[str, Any], common: dict[str, Any], line: dict[str, Any]) -> None:
    options = {key: value for key, value in line.items() if key != "send_mptcp"}
    if line.get("send_mptcp"):
        options["mptcp"] = True
    told = apply_overrides(
        config(network=common, endpoints=[endpoint(**own)]), Overrides(**options)
    )
    (made,) = effective(told).endpoints
    forced = {key: value for key, value in options.items() if key != "mptcp"}
    if "mptcp" in options:
        forced |= {"send_mptcp": True, "accept_mptcp": True}
    assert made.network == Network(**(common | own | forced))


@given(NETWORKS, NETWORKS)
def test_effective_twice_is_as_once(own: dict[str, Any], common: dict[str, Any]) -> None:
    once = effective(config(network=common, endpoints=[endpoint(**own)]))
    assert effective(once) == once


def test_effective_leaves_alone_what_says_nothing_in_common() -> None:
    plain = config(endpoints=[endpoint(use_udp=True)])
    assert effective(plain) is plain


def test_endpoints_without_own_keys_share_the_common_table() -> None:
    made = effective(config(network={"linger": 1}, endpoints=[endpoint(1), endpoint(2)]))
    assert made.endpoints[0].network is made.endpoints[1].network


def test_combine_takes_each_key_from_the_first_that_gives_it() -> None:
    made = combine(
        [
            config(log={"level": "info"}, drain=1, endpoints=[endpoint(1)]),
            config(endpoints=[]),
            config(
                log={"level": "debug", "output": "stderr"},
                network={"use_udp": True},
                drain=2,
                workers=4,
                endpoints=[endpoint(2), endpoint(3)],
            ),
            config(network={"use_udp": False, "linger": 5}),
        ]
    )
    assert made.model_dump(exclude_unset=True) == {
        "log": {"level": "info", "output": "stderr"},
        "network": {"use_udp": True, "linger": 5},
        "drain": 1,
        "workers": 4,
        "endpoints": [endpoint(1), endpoint(2), endpoint(3)],
    }


def test_combine_of_one_is_it() -> None:
    only = config(drain=3)
    assert combine([only]) is only


@given(st.lists(NETWORKS, min_size=1, max_size=4))
def test_combine_is_first_wins(tables: list[dict[str, Any]]) -> None:
    expected: dict[str, Any] = {}
    for table in tables:
        expected = table | expected
    made = combine([config(network=table) for table in tables])
    assert {key: getattr(made.network, key) for key in made.network.model_fields_set} == expected


def test_nothing_said_changes_nothing() -> None:
    plain = config(endpoints=[endpoint(use_udp=True)])
    assert apply_overrides(plain, Overrides()) is plain


def test_an_option_wins_over_an_endpoints_own_key_and_leaves_the_others() -> None:
    made = apply_overrides(
        config(endpoints=[endpoint(1, tcp_timeout=9, linger=8), endpoint(2)]),
        Overrides(tcp_timeout=1),
    )
    assert (seen(made, "tcp_timeout"), seen(made, "linger")) == ([1, 1], [8, 30])
    # What was not said is still not said, so that a converted file says no more than before.
    assert made.endpoints[1].network.model_fields_set == set()


def test_keepalive_does_not_touch_the_probes() -> None:
    made = apply_overrides(config(endpoints=[endpoint()]), Overrides(tcp_keepalive=200))
    assert (seen(made, "tcp_keepalive"), seen(made, "tcp_keepalive_probe")) == ([200], [3])


def test_false_can_be_said_of_proxy() -> None:
    made = apply_overrides(config(endpoints=[endpoint()]), Overrides(send_proxy=False))
    assert seen(made, "send_proxy") == [False]


EXAMPLES: dict[str, tuple[Any, str, Any]] = {
    "log_level": ("debug", "log.level", "debug"),
    "log_output": ("stderr", "log.output", "stderr"),
    "log_format": ("json", "log.format", "json"),
    "dns_mode": ("ipv6_only", "dns.mode", "ipv6_only"),
    "dns_protocol": ("tcp", "dns.protocol", "tcp"),
    "dns_servers": (("192.0.2.1", "a:53"), "dns.nameservers", ["192.0.2.1", "a:53"]),
    "dns_min_ttl": (1, "dns.min_ttl", 1),
    "dns_max_ttl": (2, "dns.max_ttl", 2),
    "dns_cache_size": (3, "dns.cache_size", 3),
    "workers": (2, "workers", 2),
    "drain": (0.5, "drain", 0.5),
    "pipe_page": (16, "pipe_page", 16),
    "metrics": ("127.0.0.1:9000", "metrics", "127.0.0.1:9000"),
    "control": (False, "control", False),
    "mptcp": (True, "network.accept_mptcp", True),
    "use_udp": (True, "network.use_udp", True),
    "no_tcp": (True, "network.no_tcp", True),
    "ipv6_only": (True, "network.ipv6_only", True),
    "send_proxy": (False, "network.send_proxy", False),
    "accept_proxy": ("optional", "network.accept_proxy", "optional"),
    "send_proxy_version": (1, "network.send_proxy_version", 1),
    **{
        name: (7, f"network.{name}", 7)
        for name in (
            "tcp_timeout",
            "udp_timeout",
            "tcp_keepalive",
            "tcp_keepalive_probe",
            "accept_proxy_timeout",
            "handshake_timeout",
            "idle_timeout",
            "linger",
            "max_connections",
            "max_connection_rate",
            "max_connections_per_client",
            "max_associations",
        )
    },
}


@pytest.mark.parametrize("name", [field.name for field in fields(Overrides)])
def test_every_option_reaches_its_key(name: str) -> None:
    value, path, expected = EXAMPLES[name]
    made: Any = apply_overrides(config(endpoints=[endpoint()]), Overrides(**{name: value}))
    for part in path.split("."):
        made = getattr(made, part)
    assert made == expected


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"tcp_keepalive": 99_999}, "--tcp-keepalive"),
        ({"accept_proxy": "maybe"}, "--accept-proxy"),
        ({"log_level": "loud"}, "--log-level"),
        ({"dns_servers": ["192.0.2.1", "x y"]}, "--dns-servers"),
        ({"dns_min_ttl": 9, "dns_max_ttl": 5}, "--dns-min-ttl"),
        ({"metrics": "nowhere"}, "--metrics"),
        ({"use_udp": "yes"}, "--udp"),
    ],
)
def test_a_wrong_value_is_told_with_its_option(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(config(endpoints=[endpoint()]), Overrides(**options))
    (problem,) = caught.value.problems
    assert problem.key == key


def test_option_and_file_that_do_not_fit_together_are_told() -> None:
    with pytest.raises(ConfigError, match=r"dns\.min_ttl = 600: must not be above max_ttl \(5\)"):
        apply_overrides(config(dns={"min_ttl": 600}), Overrides(dns_max_ttl=5))


def test_what_is_merged_is_a_model_like_any_other() -> None:
    made = apply_overrides(config(endpoints=[endpoint()]), Overrides(use_udp=True))
    assert Config.model_validate(made.model_dump(exclude_unset=True)) == made
    assert isinstance(made.endpoints[0], Endpoint)
