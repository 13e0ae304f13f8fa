"""``qanat diff``: what a reload would do."""

import json
from pathlib import Path

import pytest

from tests.cli.running import Run

OLD = """
workers = 1
[log]
level = "warn"

[[endpoints]]
listen = "127.0.0.1:1001"
remote = "a:1"

[[endpoints]]
listen = "127.0.0.1:1002"
remote = "b:2"

[[endpoints]]
listen = "127.0.0.1:1003"
remote = "c:3"

[[endpoints]]
name = "moving"
listen = "127.0.0.1:1004"
remote = "d:4"
"""

NEW = """
workers = 1
[log]
level = "info"

[[endpoints]]
listen = "127.0.0.1:1001"
remote = "a:1"

[[endpoints]]
listen = "127.0.0.1:1002"
remote = "bb:2"
network = { tcp_timeout = 3 }

[[endpoints]]
name = "moving"
listen = "127.0.0.1:2004"
remote = "d:4"

[[endpoints]]
listen = "127.0.0.1:1005"
remote = "e:5"
network = { use_udp = true }
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text(OLD)
    new.write_text(NEW)
    return str(old), str(new)


def test_what_would_happen_to_each(qanat: Run, files: tuple[str, str]) -> None:
    ran = qanat("diff", *files)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "CHANGE\tWHAT\tHOW",
        "added\t127.0.0.1:1005\t127.0.0.1:1005 -> e:5 tcp+udp",
        "removed\t127.0.0.1:1003\t127.0.0.1:1003 -> c:3 tcp",
        "changed\t127.0.0.1:1002\tremotes: b:2 -> bb:2; tcp.connect_timeout: 5.0 -> 3.0",
        "rebound\tmoving\tlisten: 127.0.0.1:1004 -> 127.0.0.1:2004",
        "setting\tlog.level\twarn -> info",
        "1 added, 1 removed, 2 changed, 1 untouched",
    ]


def test_json(qanat: Run, files: tuple[str, str]) -> None:
    ran = qanat("diff", "--json", *files)
    assert (ran.returncode, ran.stderr) == (0, "")
    answer = json.loads(ran.stdout)
    assert answer["added"] == ["127.0.0.1:1005"]
    assert answer["removed"] == ["127.0.0.1:1003"]
    assert answer["untouched"] == ["127.0.0.1:1001"]
    (changed,) = answer["changed"]
    assert changed["id"] == "127.0.0.1:1002"
    assert changed["fields"] == [
        {
            "field": "remotes",
            "old": [{"host": "b", "port": 2}],
            "new": [{"host": "bb", "port": 2}],
        },
        {"field": "tcp.connect_timeout", "old": 5.0, "new": 3.0},
    ]
    (rebound,) = answer["rebound"]
    assert (rebound["id"], rebound["fields"][0]["field"]) == ("moving", "listen")
    assert answer["settings"] == [{"field": "log.level", "old": "warn", "new": "info"}]


def test_a_file_and_itself(qanat: Run, files: tuple[str, str]) -> None:
    ran = qanat("diff", files[0], files[0])
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "0 added, 0 removed, 0 changed, 4 untouched\n"


def test_a_protocol_more_is_a_new_socket(qanat: Run, tmp_path: Path) -> None:
    rule = '[[endpoints]]\nlisten = "127.0.0.1:1"\nremote = "a:1"\n'
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text(rule)
    new.write_text(rule + "network = { use_udp = true }\n")
    ran = qanat("diff", str(old), str(new))
    assert ran.returncode == 0
    assert ran.stdout.splitlines()[1].startswith("rebound\t127.0.0.1:1\tudp: none -> (timeout 30")


def test_a_wrong_file_is_an_error(qanat: Run, files: tuple[str, str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('[[endpoints]]\nlisten = "127.0.0.1"\nremote = "a:1"\n')
    ran = qanat("diff", files[0], str(bad))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"qanat: {bad}:2:")


def test_one_file_is_a_wrong_use(qanat: Run, files: tuple[str, str]) -> None:
    ran = qanat("diff", files[0])
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("qanat: missing argument 'NEW'")
