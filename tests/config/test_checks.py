"""What only the whole configuration can tell."""

from pathlib import Path

import pytest

from qanat.config.load import load
from qanat.config.merge import Overrides
from qanat.errors import ConfigError, Problem

__all__: list[str] = []


def endpoints(*rules: str) -> str:
    return "endpoints:\n" + "".join(f"- {{ {rule} }}\n" for rule in rules)


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text=text, name="x")
    return [str(problem) for problem in caught.value.problems if problem.severity == "error"]


def warnings(text: str) -> list[Problem]:
    return load(text=text, name="x").warnings


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ('listen: "0.0.0.0:80"', 'listen: ":80"', "TCP port 80 is taken"),
        ('listen: "[::]:80"', 'listen: ":::80"', "TCP port 80 is taken"),
        ('listen: ":80-90"', 'listen: ":85"', "TCP port 85 is taken"),
        ('listen: ":85"', 'listen: ":80-90"', "TCP port 85 is taken"),
        ('listen: ":80-90"', 'listen: ":90-95"', "TCP port 90 is taken"),
        (
            'listen: ":80", network: {use_udp: true, no_tcp: true}',
            'listen: ":80", network: {use_udp: true}',
            "UDP port 80 is taken",
        ),
    ],
)
def test_an_address_can_be_had_once(first: str, second: str, message: str) -> None:
    text = endpoints(f"{first}, remote: 'a:1'", f"{second}, remote: 'a:1'")
    (problem,) = errors(text)
    assert problem.startswith("x:3:5: endpoints[1].listen = ")
    assert f"{message} by endpoints[0] in line 2 already" in problem


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('listen: "0.0.0.0:80"', 'listen: "127.0.0.1:80"'),
        ('listen: ":80"', 'listen: ":81"'),
        ('listen: ":80-89"', 'listen: ":90-99"'),
        ('listen: ":0"', 'listen: ":0"'),
        ('listen: ":80", listen_interface: eth0', 'listen: ":80", listen_interface: eth1'),
        ('listen: ":80"', 'listen: ":80", network: {use_udp: true, no_tcp: true}'),
    ],
)
def test_different_addresses_can_be_had(first: str, second: str) -> None:
    assert warnings(endpoints(f"{first}, remote: 'a:1'", f"{second}, remote: 'a:1'")) == []


def test_every_endpoint_that_comes_too_late_is_told() -> None:
    rule = "listen: ':80-82', remote: 'a:1'"
    assert len(errors(endpoints(rule, rule, rule))) == 2


def test_a_range_inside_of_a_range_does_not_hide_a_third() -> None:
    text = endpoints(
        "listen: ':10-99', remote: 'a:1'",
        "listen: ':20', remote: 'a:1'",
        "listen: ':30', remote: 'a:1'",
    )
    assert [problem.partition(": endpoints")[0] for problem in errors(text)] == ["x:3:5", "x:4:5"]


def test_the_command_line_may_make_two_endpoints_want_the_same() -> None:
    text = endpoints(
        "listen: ':80', remote: 'a:1'",
        "listen: ':80', remote: 'a:1', network: {use_udp: true, no_tcp: true}",
    )
    assert load(text=text).warnings == []
    with pytest.raises(ConfigError, match="UDP port 80 is taken"):
        load(text=text, overrides=Overrides(use_udp=True))


def test_files_are_named_when_there_are_many(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(endpoints("listen: ':80', remote: 'a:1'"))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    (problem,) = caught.value.problems
    assert problem.file == str(tmp_path / "b.yaml")
    assert f"endpoints[0] in line 2 of {tmp_path}/a.yaml" in problem.message


def test_neither_protocol() -> None:
    text = endpoints("listen: ':1', remote: 'a:1', network: {no_tcp: true}")
    (problem,) = warnings(text)
    assert str(problem) == (
        "x:2:44: endpoints[0].network.no_tcp = true: neither TCP nor UDP is left: "
        "the endpoint does nothing (use_udp = true relays UDP)"
    )
    assert load(text=text, overrides=Overrides(use_udp=True)).warnings == []


def test_what_many_endpoints_give_rise_to_is_told_once() -> None:
    rules = [f"listen: ':{port}', remote: 'a:1'" for port in range(1, 5)]
    (problem,) = warnings(endpoints(*rules) + "network: {no_tcp: true}\n")
    assert (problem.key, problem.line) == ("network.no_tcp", 6)
    assert "(and in 3 more)" in problem.message


def test_the_endpoints_own_table_is_named_when_it_is_at_fault() -> None:
    text = endpoints("listen: ':1', remote: 'a:1', network: {udp_timeout: 0}")
    (problem,) = warnings(text + "network: {use_udp: true, udp_timeout: 5}\n")
    assert problem.key == "endpoints[0].network.udp_timeout"
    assert "never end of themselves" in problem.message


def test_a_udp_timeout_of_nothing_matters_only_with_udp() -> None:
    assert warnings(endpoints("listen: ':1', remote: 'a:1', network: {udp_timeout: 0}")) == []


def test_extra_remotes_without_balance() -> None:
    (problem,) = warnings(endpoints("listen: ':1', remote: 'a:1', extra_remotes: ['b:1']"))
    assert problem.key == "endpoints[0].extra_remotes"
    assert "not used while balance is off" in problem.message


@pytest.mark.parametrize(
    ("listen", "remote"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        (":80", "127.0.0.1:80"),
        (":80", "127.0.0.7:80"),
        (":80", "localhost:80"),
        ("[::]:80", "127.0.0.1:80"),
        ("[::]:80", "[::1]:80"),
        ("127.0.0.1:80", "localhost:80"),
        ("127.0.0.1:80", "0.0.0.0:80"),
        (":80-90", "127.0.0.1:85"),
        (":80-90", "127.0.0.1:80-90"),
        ("name.example:80", "name.example:80"),
    ],
)
def test_flows_that_would_come_back(listen: str, remote: str) -> None:
    (problem,) = warnings(endpoints(f"listen: '{listen}', remote: '{remote}'"))
    assert "come back" in problem.message


@pytest.mark.parametrize(
    ("listen", "remote"),
    [
        ("127.0.0.1:80", "127.0.0.2:80"),
        ("127.0.0.1:80", "127.0.0.1:81"),
        (":80", "[::1]:80"),
        (":80", "192.0.2.1:80"),
        (":80-90", "127.0.0.1:81-91"),
        ("name.example:80", "127.0.0.1:80"),
        ("192.0.2.1:80", "localhost:80"),
    ],
)
def test_flows_that_would_not(listen: str, remote: str) -> None:
    assert warnings(endpoints(f"listen: '{listen}', remote: '{remote}'")) == []


def test_flows_do_not_come_back_where_ipv6_is_alone_or_a_device_is_named() -> None:
    alone = "listen: '[::]:80', remote: '127.0.0.1:80', network: {ipv6_only: true}"
    device = "listen: ':80', remote: '127.0.0.1:80', listen_interface: eth0"
    assert warnings(endpoints(alone, device)) == []


def test_ttls_that_contradict_each_other(tmp_path: Path) -> None:
    rule = "listen: ':1', remote: 'a:1'"
    (problem,) = errors(endpoints(rule) + "dns: {min_ttl: 90000}\n")
    assert problem == "x:3:7: dns.min_ttl = 90000: must not be above max_ttl (86400, its default)"
    (tmp_path / "a.yaml").write_text("dns: {max_ttl: 200000}")
    (tmp_path / "b.yaml").write_text(endpoints(rule) + "dns: {min_ttl: 90000, max_ttl: 5}")
    assert load(tmp_path).config.dns.max_ttl == 200_000


def test_remotes_that_something_chooses_are_used() -> None:
    rule = "listen: ':{}', remote: 'a:1', extra_remotes: ['b:1'], {}"
    ways = ["balance: iphash", "failover: true", "hook: 'a:b'"]
    assert warnings(endpoints(*(rule.format(n + 1, way) for n, way in enumerate(ways)))) == []


def test_failover_to_nowhere() -> None:
    (problem,) = warnings(endpoints("listen: ':1', remote: 'a:1', failover: true"))
    assert (problem.key, problem.message) == (
        "endpoints[0].failover",
        "there is no other remote to go to",
    )


def test_a_hook_that_half_of_the_flows_pass_by() -> None:
    rule = "listen: ':1', remote: 'a:1', hook: 'a:b'"
    (problem,) = warnings(endpoints(f"{rule}, network: {{use_udp: true}}"))
    assert (problem.key, problem.value) == ("endpoints[0].hook", "a:b")
    assert "UDP comes in unasked" in problem.message


def test_networks_whose_headers_nobody_reads() -> None:
    text = endpoints("listen: ':1', remote: 'a:1'")
    (problem,) = warnings(text + "network: {accept_proxy_from: ['10.0.0.0/8']}\n")
    assert (problem.key, problem.line) == ("network.accept_proxy_from", 3)
    assert warnings(text + "network: {accept_proxy_from: [10.0.0.0/8], accept_proxy: true}\n") == []


@pytest.mark.parametrize(
    ("rule", "key", "message"),
    [
        ("listen_transport: 'tls;servername=a;0rtt'", "listen_transport", "0rtt has no effect"),
        ("remote_transport: 'tls;sni=a;0rtt'", "remote_transport", "0rtt has no effect"),
        (
            "remote_transport: 'ws;host=a;path=/;mask=random'",
            "remote_transport",
            "realm ignores mask",
        ),
        (
            "remote_transport: 'tls;sni=a', network: {use_udp: true}",
            "remote_transport",
            "UDP goes out as it is",
        ),
        (
            "listen_transport: 'tls;servername=a', network: {use_udp: true, no_tcp: true}",
            "listen_transport",
            "by TCP, which is off",
        ),
    ],
)
def test_transports_that_do_less_than_one_may_think(rule: str, key: str, message: str) -> None:
    (problem,) = warnings(endpoints(f"listen: ':1', remote: 'a:1', {rule}"))
    assert problem.key == f"endpoints[0].{key}"
    assert message in problem.message


def test_transports_that_do_what_they_say() -> None:
    text = endpoints(
        "listen: ':1', remote: 'a:1', listen_transport: 'tls;servername=a'",
        "listen: ':2', remote: 'a:1', remote_transport: uot, "
        "network: {use_udp: true, no_tcp: true}",
    )
    assert warnings(text) == []


@pytest.mark.parametrize(
    ("rule", "key", "message"),
    [
        (
            "remote_transport: 'tls;sni=a;uot', network: {use_udp: true}",
            "remote_transport",
            "would take TCP flows for datagrams",
        ),
        ("remote_transport: uot", "remote_transport", "would take TCP flows for datagrams"),
        (
            "listen_transport: uot, network: {use_udp: true, no_tcp: true}",
            "listen_transport",
            "by TCP, which is off",
        ),
    ],
)
def test_datagrams_in_streams_and_flows_beside_them_exclude_each_other(
    rule: str, key: str, message: str
) -> None:
    (problem, *_) = errors(endpoints(f"listen: ':1', remote: 'a:1', {rule}"))
    assert problem.startswith("x:2:")
    assert f"endpoints[0].{key}: " in problem
    assert message in problem


def test_datagrams_in_streams_may_pass_as_they_are() -> None:
    text = endpoints("listen: ':1', remote: 'a:1', listen_transport: uot, remote_transport: uot")
    assert warnings(text) == []
