"""Which configuration a start line means, and what its options do to it."""

import sys
from collections.abc import Callable
from pathlib import Path
from shlex import split
from typing import Any

import pytest

from qanat.cli.main import main
from qanat.relay.planning import plans
from tests.cli.running import Asked, Run

PAIR = ("-l", "127.0.0.1:5000", "-r", "example.com:80")


def test_what_belongs_to_an_endpoint(asked: Asked) -> None:
    words = [*PAIR, "-x", "127.0.0.2", "-i", "eth0", "-e", "eth1"]
    assert main(["relay", *words], program="qanat") == 0
    (endpoint,) = asked.config.endpoints
    assert endpoint.through == "127.0.0.2"
    assert (endpoint.interface, endpoint.listen_interface) == ("eth0", "eth1")


def test_several_endpoints(asked: Asked) -> None:
    words = ["-l", ":1", "-l", ":2", "-r", "a:1", "-r", "b:2"]
    assert main(["relay", *words], program="qanat") == 0
    assert [(e.listen, e.remote) for e in asked.config.endpoints] == [(":1", "a:1"), (":2", "b:2")]


def test_a_range_of_ports(asked: Asked) -> None:
    words = ["-l", "127.0.0.1:5000-5002", "-r", "a:6000-6002"]
    assert main(["relay", *words], program="qanat") == 0
    found = [(plan.listen, plan.remotes[0].port) for plan in plans(asked.config)]
    assert found == [
        ("127.0.0.1:5000", 6000),
        ("127.0.0.1:5001", 6001),
        ("127.0.0.1:5002", 6002),
    ]


def test_options_stand_above_the_file(asked: Asked, tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(
        "workers = 1\n"
        "[log]\nlevel = 'warn'\n"
        "[network]\nudp_timeout = 10\ntcp_timeout = 9\n"
        "[[endpoints]]\nlisten = '127.0.0.1:1'\nremote = 'a:1'\n"
        "network = { tcp_timeout = 3, tcp_keepalive = 20 }\n"
        "[[endpoints]]\nlisten = '127.0.0.1:2'\nremote = 'b:2'\n"
    )
    words = split("--tcp-timeout 7 -u --log-level ERROR --workers 2 --idle-timeout 1.5")
    assert main(["relay", "-c", str(file), *words], program="qanat") == 0
    first, second = plans(asked.config)
    for plan in (first, second):
        assert plan.tcp is not None and plan.udp is not None
        assert plan.tcp.connect_timeout == 7
        assert plan.tcp.idle_timeout == 1.5
        assert plan.udp.timeout == 10
    assert first.tcp is not None and first.tcp.keepalive == 20
    assert asked.config.log.level == "error"
    assert asked.config.workers == 2
    assert asked.options["config_paths"] == [file]


def test_keepalive_and_its_probes_are_two_things(asked: Asked) -> None:
    words = [*PAIR, "--tcp-keepalive", "200", "--tcp-keepalive-probe", "5"]
    assert main(["relay", *words], program="qanat") == 0
    (plan,) = plans(asked.config)
    assert plan.tcp is not None
    assert (plan.tcp.keepalive, plan.tcp.keepalive_probes) == (200, 5)


def test_every_override_reaches_the_plans(asked: Asked) -> None:
    words = split(
        "-tum6 -p 32 --dns-mode IPV6_only --dns-min-ttl 1 --dns-max-ttl 2 --dns-cache-size 3 "
        "--dns-protocol TCP --udp-timeout 4 --linger 0.5 --max-connections 5 "
        "--max-connection-rate 6 --max-connections-per-client 7 --max-associations 8 "
        "--send-proxy false --accept-proxy=false --send-proxy-version 1 --accept-proxy-timeout 9 "
        "--log-output stderr"
    )
    servers = ["--dns-servers", "192.0.2.1, [2001:db8::1]:5353"]
    assert main(["relay", *PAIR, *words, *servers], program="qanat") == 0
    (plan,) = plans(asked.config)
    assert plan.tcp is None
    assert plan.udp is not None and plan.udp.timeout == 4
    assert plan.ipv6_only
    assert plan.resolver.mode == "ipv6_only"
    assert plan.resolver.protocol == "tcp"
    assert (plan.resolver.min_ttl, plan.resolver.max_ttl, plan.resolver.cache_size) == (1, 2, 3)
    assert plan.resolver.nameservers == ("192.0.2.1:53", "[2001:db8::1]:5353")
    limits = plan.limits
    assert (limits.connections, limits.connection_rate) == (5, 6)
    assert (limits.connections_per_client, limits.associations) == (7, 8)
    assert asked.config.pipe_page == 32
    assert asked.config.log.output == "stderr"


def test_zero_is_a_value(asked: Asked) -> None:
    words = split(
        "-u --tcp-timeout 0 --udp-timeout 0 --tcp-keepalive 0 --linger 0 --drain 0 "
        "--max-associations 0"
    )
    assert main(["relay", *PAIR, *words], program="qanat") == 0
    (plan,) = plans(asked.config)
    assert plan.tcp is not None and plan.udp is not None
    assert (plan.tcp.connect_timeout, plan.tcp.keepalive, plan.tcp.linger) == (0, 0, 0)
    assert plan.udp.timeout == 0
    assert plan.limits.associations == 0
    assert asked.config.drain == 0
    assert asked.options["drain"] == 0


def test_pipes_of_no_size_are_adaptive(asked: Asked) -> None:
    assert main(["relay", *PAIR, "-p", "0"], program="qanat") == 0
    assert asked.config.pipe_page is None


def test_what_is_odd_is_warned_of(asked: Asked) -> None:
    assert main(["relay", *PAIR, "-u", "--udp-timeout", "0"], program="qanat") == 0
    (warning,) = asked.warnings
    assert warning.startswith("--udp-timeout = 0: UDP associations never end")


def test_options_that_contradict_one_another_are_a_wrong_use(wrong: Callable[..., str]) -> None:
    message = wrong(*PAIR, "--dns-min-ttl", "9", "--dns-max-ttl", "8")
    assert message.startswith("--dns-min-ttl = 9: must not be above")


def test_an_address_that_is_taken_twice_names_the_option(wrong: Callable[..., str]) -> None:
    message = wrong(*PAIR, *PAIR)
    assert message.startswith('-l/--listen = "127.0.0.1:5000": TCP port 5000 is taken')


def test_a_wrong_address_for_metrics_names_the_option(wrong: Callable[..., str]) -> None:
    assert wrong(*PAIR, "--metrics", "nowhere").startswith('--metrics = "nowhere"')


def test_multipath_is_for_both_sides(asked: Asked) -> None:
    assert main(["relay", *PAIR, "-m", "--linger", "2"], program="qanat") == 0
    (plan,) = plans(asked.config)
    assert plan.tcp is not None
    assert plan.tcp.accept_mptcp and plan.tcp.send_mptcp
    assert plan.tcp.linger == 2


def test_the_configuration_can_be_read_again_with_the_same_options(
    asked: Asked, tmp_path: Path
) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("[[endpoints]]\nlisten = '127.0.0.1:1'\nremote = 'a:1'\n")
    assert main(["relay", "-c", str(file), "-u"], program="qanat") == 0
    file.write_text("[[endpoints]]\nlisten = '127.0.0.1:2'\nremote = 'a:1'\n")
    (plan,) = plans(asked.options["reloader"]().config)
    assert plan.listen == "127.0.0.1:2"
    assert plan.udp is not None


def test_addresses_beside_a_file_are_ignored_and_said_so(
    asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("[[endpoints]]\nlisten = '127.0.0.1:1'\nremote = 'a:1'\n")
    assert main(["relay", "-c", str(file), *PAIR, "-a", "ws"], program="qanat") == 0
    assert [endpoint.listen for endpoint in asked.config.endpoints] == ["127.0.0.1:1"]
    assert capsys.readouterr().err.splitlines() == [
        "qanat: warning: -l/--listen is ignored: -c is given",
        "qanat: warning: -r/--remote is ignored: -c is given",
        "qanat: warning: -a/--listen-transport is ignored: -c is given",
    ]


def test_quick_start_excludes_addresses(wrong: Callable[..., str]) -> None:
    assert wrong("--quick-start", *PAIR) == "--quick-start excludes -l/--listen"


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["-l", "127.0.0.1", "-r", "a:1"], "-l/--listen"),
        (["-l", "127.0.0.1:70000", "-r", "a:1"], "-l/--listen"),
        (["-l", ":1", "-r", "http://a"], "-r/--remote"),
        (["-l", ":1", "-r", "a"], "-r/--remote"),
        ([*PAIR, "-x", "1.2.3.4:5:6"], "-x/--through"),
        ([*PAIR, "-i", "a/b"], "-i/--interface"),
        (["-l", ":1-3", "-r", "a:1-2"], "-r/--remote"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_address_names_its_option(
    wrong: Callable[..., str], words: list[str], option: str
) -> None:
    assert wrong(*words).startswith(f"invalid value for {option}: '")


def test_the_variable_comes_first(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(
        "REALM_CONF",
        '{"network": {"use_udp": true}, "endpoints": [{"local": ":7", "remote": "a:7"}]}',
    )
    assert main(["relay", *PAIR, "--udp-timeout", "8"], program="qanat") == 0
    (plan,) = plans(asked.config)
    assert plan.listen.endswith(":7")
    assert plan.udp is not None and plan.udp.timeout == 8
    assert "-l/--listen is ignored: REALM_CONF is set" in capsys.readouterr().err


def test_the_variable_needs_no_words(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALM_CONF", "[[endpoints]]\nlisten = ':7'\nremote = 'a:7'\n")
    assert main([], program="realm") == 0
    assert len(asked.config.endpoints) == 1


def test_a_wrong_variable_is_an_error(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REALM_CONF", '{"endpoints": [{"listen": ":7"}]}')
    assert main(["relay", *PAIR], program="qanat") == 1
    assert asked.config is None
    err = capsys.readouterr().err
    assert "REALM_CONF" in err
    assert "remote" in err


def test_a_missing_file_is_an_error(qanat: Run, tmp_path: Path) -> None:
    ran = qanat("relay", "-c", str(tmp_path / "none.toml"))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("qanat: ")
    assert "none.toml" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.usefixtures("no_names")
def test_what_the_program_finds_in_a_file_has_its_place(
    asked: Asked,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    rule = "[[endpoints]]\nlisten = '{}'\nremote = 'a:1'\n"
    (folder / "a.toml").write_text(rule.format("127.0.0.1:1"))
    (folder / "b.toml").write_text("# nothing\n" + rule.format("nowhere.invalid:2"))

    def run(loaded: Any, options: Any) -> int:
        plans(loaded.config)
        return 0

    monkeypatch.setattr(sys.modules["qanat.relay.program"], "run", run)
    assert main(["relay", "-c", str(folder)], program="qanat") == 1
    err = capsys.readouterr().err
    assert err.startswith(f"qanat: {folder / 'b.toml'}:3:1: endpoints[0].listen = ")
