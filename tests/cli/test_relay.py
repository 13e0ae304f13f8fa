"""What a start line of ``qanat relay`` or ``realm`` asks of the running program."""

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.cli.main import main
from qanat.cli.options import relay_options
from qanat.cli.relay import REALM_FEATURES
from qanat.cli.strict import StrictOption
from qanat.relay.planning import plans
from tests.cli.running import Asked, Run

PAIR = ("-l", "127.0.0.1:5000", "-r", "example.com:80")


def test_one_endpoint(asked: Asked) -> None:
    assert main(["relay", *PAIR], program="qanat") == 0
    (endpoint,) = asked.config.endpoints
    assert (endpoint.listen, endpoint.remote) == ("127.0.0.1:5000", "example.com:80")
    assert asked.options["config_paths"] == []
    assert asked.options["watch"] is False
    assert asked.options["daemon"] is False
    assert asked.options["control"] is None


def test_the_exit_code_is_the_programs(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    program = sys.modules["qanat.relay.program"]
    monkeypatch.setattr(program, "run", lambda loaded, options: 1)
    assert main(["relay", *PAIR], program="qanat") == 1


def test_nothing_to_watch_is_said(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["relay", *PAIR, "--watch"], program="qanat") == 0
    assert "--watch has nothing to watch" in capsys.readouterr().err


@pytest.mark.usefixtures("no_names")
def test_what_the_program_finds_names_the_option(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(loaded: Any, options: Any) -> int:
        plans(loaded.config)
        return 0

    monkeypatch.setattr(sys.modules["qanat.relay.program"], "run", run)
    words = ["-l", "nowhere.invalid:1", "-r", "a:1"]
    assert main(["relay", *words], program="qanat") == 1
    assert capsys.readouterr().err.startswith('qanat: -l/--listen = "nowhere.invalid:1": ')


def test_what_the_program_itself_is_asked(asked: Asked, tmp_path: Path) -> None:
    words = [
        *("--drain", "2.5", "--watch", "--control", "off", "--metrics", "127.0.0.1:9100", "-d"),
        *("--pid-file", str(tmp_path / "pid"), "-n", "4096", "--log-format", "json"),
    ]
    assert main(["relay", *PAIR, *words], program="qanat") == 0
    options = asked.options
    assert options["drain"] == 2.5
    assert options["watch"] is True
    assert options["control"] is False
    assert options["metrics"] == "127.0.0.1:9100"
    assert options["daemon"] is True
    assert options["nofile"] == 4096
    assert options["log_format"] == "json"
    assert str(options["pid_file"]) == str(tmp_path / "pid")


def test_the_path_of_the_control_socket(asked: Asked) -> None:
    assert main(["relay", *PAIR, "--control", "/run/x.sock"], program="qanat") == 0
    assert str(asked.options["control"]) == "/run/x.sock"


def test_old_flags_are_accepted_with_a_notice(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["relay", *PAIR, "-fz"], program="qanat") == 0
    assert asked.config is not None
    assert capsys.readouterr().err.splitlines() == [
        "qanat: warning: -f/--tfo has no effect any more",
        "qanat: warning: -z/--splice has no effect any more",
    ]


def test_transports_are_those_of_every_pair(asked: Asked) -> None:
    words = ["-a", "ws;host=a;path=/", "-b=tls;sni=b", "-l", ":2", "-r", "c:1"]
    assert main(["relay", *PAIR, *words], program="qanat") == 0
    for endpoint in asked.config.endpoints:
        assert endpoint.listen_wrapping.ws.path == "/"
        assert endpoint.remote_wrapping.tls.sni == "b"


@pytest.mark.parametrize(
    ("words", "send", "accept"),
    [
        (["--send-proxy", "--accept-proxy"], True, True),
        (["--send-proxy", "true", "--accept-proxy=optional"], True, "optional"),
        (["--send-proxy=false", "--accept-proxy", "false"], False, False),
    ],
)
def test_the_proxy_protocol(asked: Asked, words: list[str], send: bool, accept: bool | str) -> None:
    assert main(["relay", *PAIR, *words], program="qanat") == 0
    network = asked.config.network
    assert (network.send_proxy, network.accept_proxy) == (send, accept)
    assert {"send_proxy", "accept_proxy"} <= network.model_fields_set


def test_quick_start_needs_no_address(asked: Asked) -> None:
    assert main(["relay", "--quick-start"], program="qanat") == 0
    assert asked.options["quickstart"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-l", ":1"], "-r/--remote is missing: give -c, or -l with -r"),
        (["-r", "a:1"], "-l/--listen is missing: give -c, or -l with -r"),
        (["-u"], "-l/--listen is missing: give -c, or -l with -r"),
        ([*PAIR, "-l", ":2"], "2 x -l but 1 x -r: each -l needs its own -r"),
        ([*PAIR, "stray"], "unexpected word: stray"),
        (
            [*PAIR, "-j", "x.so"],
            (
                "-j/--pre-conn-hook: a library with realm's binary hook can't be loaded: write the "
                "decision as a Python function and name it in the file, as "
                'hook = "module:function" of an endpoint'
            ),
        ),
        (
            [*PAIR, "-a", "WS;host=a;path=/"],
            (
                "invalid value for -a/--listen-transport: 'WS;host=a;path=/': "
                'unknown option "WS" (did you mean ws?)'
            ),
        ),
        (
            [*PAIR, "-b", "tls"],
            "invalid value for -b/--remote-transport: 'tls': \"tls\" needs sni= (tls;sni=...)",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use(wrong: Callable[..., str], words: list[str], message: str) -> None:
    assert wrong(*words) == message


NUMBERS = [
    parameter.opts[-1]
    for parameter in relay_options()
    if isinstance(parameter, StrictOption) and parameter.metavar in ("N", "SECONDS")
]


@pytest.mark.parametrize("option", NUMBERS)
def test_a_wrong_number_names_its_option(wrong: Callable[..., str], option: str) -> None:
    message = wrong(*PAIR, option, "many")
    assert message.startswith("invalid value for ")
    assert f"'{option}'" in message


@pytest.mark.parametrize("option", ["--log-level", "--dns-mode", "--dns-protocol", "--log-format"])
def test_a_wrong_word_is_answered_with_the_right_ones(
    wrong: Callable[..., str], option: str
) -> None:
    message = wrong(*PAIR, option, "loud")
    assert f"'{option}'" in message
    assert "is not one of" in message


known = st.sampled_from([name for option in relay_options() for name in option.opts])
loose = st.text(
    st.characters(exclude_characters="/.\0", codec=None) | st.sampled_from("-=:,0123456789"),
    max_size=8,
)
lines = st.lists(
    st.one_of(known, loose, st.builds("{}={}".format, known, loose), st.just("127.0.0.1:1")),
    max_size=8,
)


@given(words=lines)
def test_no_line_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    program = SimpleNamespace(run=lambda loaded, options: 0, ProgramOptions=dict)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        patch.setitem(sys.modules, "qanat.relay.program", program)
        patch.setattr("qanat.relay.program", program, raising=False)
        patch.delenv("REALM_CONF", raising=False)
        for name in ("qanat", "realm"):
            if name == "realm" and "convert" in words:
                continue
            full = ["relay", *words] if name == "qanat" else words
            assert main(full, program=name) in (0, 1, 2)


# --- as realm ---------------------------------------------------------------------------------


def test_realm_without_words_shows_its_help_as_an_error(realm: Run) -> None:
    ran = realm()
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("Usage: realm [FLAGS] [OPTIONS]")


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["-v", "-h"], ["-duh"]], ids=" ".join)
def test_realm_help_wins(realm: Run, words: list[str]) -> None:
    ran = realm(*words, REALM_CONF="no configuration")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Usage: realm [FLAGS] [OPTIONS]")
    assert [line for line in ran.stdout.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("words", [["-v"], ["--version"], ["-u", "-v", "-d"]], ids=" ".join)
def test_realm_version_has_realms_shape(realm: Run, words: list[str]) -> None:
    ran = realm(*words, REALM_CONF="no configuration")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(r"Realm \S+ (\[[a-z-]+\])+\n", ran.stdout)
    assert re.findall(r"\[([a-z-]+)\]", ran.stdout) == list(REALM_FEATURES)


def test_realm_version_may_be_given_once(realm: Run) -> None:
    assert realm("-vv").returncode == 2


def test_realm_relays(asked: Asked) -> None:
    assert main(PAIR, program="/usr/bin/realm") == 0
    assert len(asked.config.endpoints) == 1


@pytest.mark.parametrize("program", ["realm-x", "qanat", "myrealm", "realm2"])
def test_only_realm_is_realm(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], program=program) == 2
    assert capsys.readouterr().err.startswith("Usage: qanat")


def test_realm_converts(realm: Run, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text(
        '{"listening_addresses": ["0.0.0.0"], "listening_ports": ["8080-8081"],'
        ' "remote_addresses": ["a", "b"], "remote_ports": ["443"]}'
    )
    ran = realm("convert", "-t", "json", str(old), REALM_CONF="no configuration")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == (
        '{"endpoints":[{"listen":"0.0.0.0:8080","remote":"a:443"},'
        '{"listen":"0.0.0.0:8081","remote":"b:443"}]}\n'
    )


def test_realm_convert_needs_a_file(realm: Run) -> None:
    ran = realm("convert")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("realm: missing argument 'CONFIG'")


def test_realm_convert_has_a_help(realm: Run) -> None:
    ran = realm("convert", "-h")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Usage: realm convert")


def test_realm_api_is_not_yet_there(wrong: Callable[..., str]) -> None:
    assert wrong("api", "-p", "8080", program="realm") == "'api' is not yet supported"


def test_realm_knows_no_other_command(wrong: Callable[..., str]) -> None:
    message = wrong("-u", "convrt", "x", program="realm")
    assert message == "no such command: convrt; did you mean 'convert'?"


def test_realm_carries_bytes_and_stops_in_order(realm: Run) -> None:
    """The whole of it: link, start lines, a connection each way, SIGTERM."""
    with socket.create_server(("127.0.0.1", 0)) as target:
        port = target.getsockname()[1]
        process = subprocess.Popen(
            [*realm.start, "-l", "127.0.0.1:0", "-r", f"127.0.0.1:{port}", "--control", "off"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                assert process.stdout is not None
                started = next(line for line in process.stdout if line.startswith("inited: "))
                shown = re.match(r"inited: 127\.0\.0\.1:(\d+) -> ", started)
                assert shown is not None
                with socket.create_connection(("127.0.0.1", int(shown[1])), timeout=5) as client:
                    client.sendall(b"ping")
                    served, _ = target.accept()
                    with served:
                        served.settimeout(5)
                        assert served.recv(4) == b"ping"
                        served.sendall(b"pong")
                        assert client.recv(4) == b"pong"
            finally:
                process.terminate()
            _, err = process.communicate(timeout=15)
    assert (process.returncode, err) == (0, "")


def test_an_address_in_use_is_an_error_with_its_name(qanat: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = qanat("relay", "-l", address, "-r", "127.0.0.1:1", "--control", "off")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("qanat: ")
    assert address in ran.stderr
    assert "in use" in ran.stderr
    assert "Traceback" not in ran.stderr
