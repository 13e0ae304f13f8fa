"""``qanat check``: what is wrong, what is odd, and what would be relayed."""

import json
from pathlib import Path

import pytest

from qanat.cli.main import main
from tests.cli.running import Run

GOOD = """
[[endpoints]]
name = "web"
listen = "127.0.0.1:5000-5001"
remote = "example.com:443"
network = { use_udp = true }

[[endpoints]]
listen = "[::1]:5002"
remote = "[2001:db8::1]:80"
"""

BAD = """
[[endpoints]]
listen = "127.0.0.1:5000"
remote = "http://example.com:80"

[endpoints.network]
tcp_timeot = 3
tcp_keepalive = "15"
"""


def test_a_right_file(qanat: Run, tmp_path: Path) -> None:
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    ran = qanat("check", str(file))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        f"{file}: ok, 3 endpoints",
        "ENDPOINT\tLISTEN\tTARGET\tPROTOCOLS",
        "web:5000\t127.0.0.1:5000\texample.com:443\ttcp+udp",
        "web:5001\t127.0.0.1:5001\texample.com:443\ttcp+udp",
        "[::1]:5002\t[::1]:5002\t[2001:db8::1]:80\ttcp",
    ]


def test_every_mistake_at_once_with_its_place(qanat: Run, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(BAD)
    ran = qanat("check", str(file))
    assert ran.returncode == 1
    assert ran.stdout == f"{file}: 2 errors\n"
    lines = ran.stderr.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"qanat: {file}:4:")
    assert "endpoints[0].remote" in lines[0]
    assert lines[1].startswith(f"qanat: warning: {file}:7:")
    assert "tcp_timeout" in lines[1]
    assert lines[2].startswith(f"qanat: {file}:8:")
    assert "endpoints[0].network.tcp_keepalive" in lines[2]


def test_several_files_are_checked_each_for_itself(qanat: Run, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(GOOD)
    bad.write_text(BAD)
    ran = qanat("check", str(bad), str(good))
    assert ran.returncode == 1
    assert f"{bad}: 2 errors" in ran.stdout
    assert f"{good}: ok, 3 endpoints" in ran.stdout


def test_json_has_problems_and_endpoints(qanat: Run, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(GOOD)
    bad.write_text(BAD)
    ran = qanat("check", "--json", str(good), str(bad))
    assert (ran.returncode, ran.stderr) == (1, "")
    answer = json.loads(ran.stdout)
    assert answer["ok"] is False
    first, second = answer["files"]
    assert (first["ok"], first["problems"]) == (True, [])
    assert first["endpoints"][0] == {
        "id": "web:5000",
        "listen": "127.0.0.1:5000",
        "target": "example.com:443",
        "protocols": ["tcp", "udp"],
    }
    assert second["ok"] is False
    wrong = [problem for problem in second["problems"] if problem["severity"] == "error"]
    assert [(problem["line"], problem["key"], problem["value"]) for problem in wrong] == [
        (4, "endpoints[0].remote", "http://example.com:80"),
        (8, "endpoints[0].network.tcp_keepalive", "15"),
    ]


def test_an_address_that_is_taken_twice_is_found(qanat: Run, tmp_path: Path) -> None:
    file = tmp_path / "twice.toml"
    rule = '[[endpoints]]\nlisten = "127.0.0.1:5000"\nremote = "a:1"\n'
    file.write_text(rule + rule)
    ran = qanat("check", str(file))
    assert ran.returncode == 1
    assert "endpoints[1].listen" in ran.stderr
    assert str(file) in ran.stderr


@pytest.mark.usefixtures("no_names")
def test_a_name_to_listen_on_that_has_no_address_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "name.toml"
    file.write_text('[[endpoints]]\nlisten = "nowhere.invalid:5000"\nremote = "a:1"\n')
    assert main(["check", str(file)], program="qanat") == 1
    err = capsys.readouterr().err
    assert err.startswith(f"qanat: {file}:2:1: endpoints[0].listen = ")
    assert "nowhere.invalid has no address" in err


def test_files_of_a_transport_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, missing = tmp_path / "tls.toml", tmp_path / "a.pem"
    file.write_text(
        '[[endpoints]]\nlisten = "127.0.0.1:443"\nremote = "a:1"\n'
        "[endpoints.listen_transport]\n"
        f'tls = {{ cert = "{missing}", key = "{missing}" }}\n'
    )
    assert main(["check", str(file)], program="qanat") == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"qanat: {file}:5:9: endpoints[0].listen_transport.tls.cert = ")
    assert first.endswith("the file does not exist")
    assert "endpoints[0].listen_transport.tls.key = " in second


def test_all_remotes_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "many.yaml"
    file.write_text(
        "endpoints: [{listen: ':1', remote: 'a:1', extra_remotes: ['b:2'], balance: iphash}]"
    )
    assert main(["check", str(file)], program="qanat") == 0
    assert "a:1|b:2" in capsys.readouterr().out


def test_a_missing_file_is_an_error(qanat: Run, tmp_path: Path) -> None:
    ran = qanat("check", str(tmp_path / "none"))
    assert ran.returncode == 1
    assert "No such file" in ran.stderr


def test_without_a_file_it_is_a_wrong_use(qanat: Run) -> None:
    ran = qanat("check")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("qanat: missing argument")


def test_files_of_proxies_are_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "proxy.toml"
    good.write_text('mixed = ":3128"\nhttp = [":8080"]\nrules = ["allow user=alice"]\n')
    assert main(["check", str(good)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{good}: ok, a proxy\n")
    assert "mixed" in out
    assert ":8080" in out
    # Nobody can be alice.
    assert "without auth, nobody has a name" in err
    bad = tmp_path / "bad.toml"
    bad.write_text('mixed = ":3128"\nrules = ["deny port=x"]\nauth = "nobody"\nmixd = 5\n')
    assert main(["check", "--json", str(bad)]) == 1
    (told,) = json.loads(capsys.readouterr().out)["files"]
    assert not told["ok"]
    assert any("mixd" in str(problem["key"]) for problem in told["problems"])
