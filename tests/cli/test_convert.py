"""``qanat convert``: the same configuration in another form."""

import json
from pathlib import Path

import pytest
import yaml

from qanat.cli.main import main
from qanat.config.load import load
from tests.cli.running import Run

LEGACY = {
    "listening_addresses": ["0.0.0.0"],
    "listening_ports": ["8080-8082"],
    "remote_addresses": ["a", "b"],
    "remote_ports": ["443"],
}

MODERN = """
workers = 2

[log]
level = "info"

[network]
use_udp = true
tcp_timeout = 7

[[endpoints]]
local = "0.0.0.0:1"
remote = "a:1"

[[endpoints]]
listen = "0.0.0.0:2"
remote = "b:2"
through = "127.0.0.1"

[endpoints.network]
tcp_timeout = 3
"""


@pytest.fixture
def legacy(tmp_path: Path) -> str:
    file = tmp_path / "legacy.json"
    file.write_text(json.dumps(LEGACY))
    return str(file)


@pytest.fixture
def modern(tmp_path: Path) -> str:
    file = tmp_path / "modern.toml"
    file.write_text(MODERN)
    return str(file)


def test_legacy_becomes_toml(qanat: Run, legacy: str) -> None:
    ran = qanat("convert", legacy)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == (
        "[[endpoints]]\n"
        'listen = "0.0.0.0:8080"\n'
        'remote = "a:443"\n'
        "\n"
        "[[endpoints]]\n"
        'listen = "0.0.0.0:8081"\n'
        'remote = "b:443"\n'
        "\n"
        "[[endpoints]]\n"
        'listen = "0.0.0.0:8082"\n'
        'remote = "a:443"\n'
        "\n"
    )


def test_legacy_becomes_one_line_of_json(qanat: Run, legacy: str, tmp_path: Path) -> None:
    output = tmp_path / "new.json"
    output.write_text("to be replaced " * 100)
    ran = qanat("convert", "-t", "json", "-o", str(output), legacy)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert output.read_text() == (
        '{"endpoints":[{"listen":"0.0.0.0:8080","remote":"a:443"},'
        '{"listen":"0.0.0.0:8081","remote":"b:443"},'
        '{"listen":"0.0.0.0:8082","remote":"a:443"}]}'
    )


@pytest.mark.parametrize("kind", ["toml", "json", "yaml"])
def test_nothing_is_lost_on_the_way(qanat: Run, modern: str, tmp_path: Path, kind: str) -> None:
    output = tmp_path / f"new.{kind}"
    ran = qanat("convert", "-o", str(output), modern)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert load(output).config == load(modern).config


def test_what_was_not_said_stays_unsaid(qanat: Run, modern: str) -> None:
    ran = qanat("convert", "-t", "yaml", modern)
    assert ran.returncode == 0, ran.stderr
    assert yaml.safe_load(ran.stdout) == {
        "workers": 2,
        "log": {"level": "info"},
        "network": {"use_udp": True, "tcp_timeout": 7},
        "endpoints": [
            {"listen": "0.0.0.0:1", "remote": "a:1"},
            {
                "listen": "0.0.0.0:2",
                "remote": "b:2",
                "through": "127.0.0.1",
                "network": {"tcp_timeout": 3},
            },
        ],
    }


def test_the_name_of_the_output_tells_the_format(qanat: Run, legacy: str, tmp_path: Path) -> None:
    output = tmp_path / "new.yml"
    assert qanat("convert", "-o", str(output), legacy).returncode == 0
    assert yaml.safe_load(output.read_text())["endpoints"][0]["remote"] == "a:443"


def test_a_wrong_file_is_an_error_and_writes_nothing(qanat: Run, tmp_path: Path) -> None:
    bad, output = tmp_path / "bad.json", tmp_path / "new.toml"
    bad.write_text('{"endpoints": [{"listen": 1}]}')
    ran = qanat("convert", str(bad), "-o", str(output))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert str(bad) in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not output.exists()


def test_an_output_that_cannot_be_written_is_an_error(qanat: Run, legacy: str) -> None:
    ran = qanat("convert", legacy, "-o", "/nowhere/new.toml")
    assert ran.returncode == 1
    assert "qanat: /nowhere/new.toml: No such file or directory" in ran.stderr


def test_an_unknown_format_is_a_wrong_use(qanat: Run, legacy: str) -> None:
    ran = qanat("convert", "-t", "xml", legacy)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "toml" in ran.stderr


EVERYTHING = """
[network]
accept_proxy = "optional"
max_rate_up = "10MiB/s"
check = { kind = "http", status = [200, 204] }

[[endpoints]]
listen = "0.0.0.0:1"
remote = "a:1"
extra_remotes = ["b:1"]
balance = "iphash: 2, 1"
failover = true
listen_transport = "tls;servername=a"
allow = ["10.0.0.0/8"]
quota = "5GB"
hook = "a:b"

[endpoints.remote_transport]
tls = { sni = "a", alpn = ["h2"] }
ws = { host = "a", path = "/b" }

[[endpoints.route]]
sni = ["a", "*.b"]
remote = "c:1"

[[endpoints.route]]
bytes = "SSH-"
remote = "d:1"
"""


@pytest.mark.parametrize("kind", ["toml", "json", "yaml"])
def test_tables_within_tables_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    file, output = tmp_path / "everything.toml", tmp_path / f"made.{kind}"
    file.write_text(EVERYTHING)
    assert main(["convert", str(file), "-o", str(output)], program="qanat") == 0
    assert capsys.readouterr().err == ""
    assert load(output).config == load(file).config
    assert "tls;servername=a" in output.read_text()
