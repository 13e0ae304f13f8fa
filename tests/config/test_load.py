"""Files, folders, pipes and texts, as a user would write them."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from qanat.config import load as module
from qanat.config.load import Loaded, load
from qanat.config.merge import Overrides, effective
from qanat.config.models import Config
from qanat.errors import ConfigError, Problem

__all__: list[str] = []

FILES = Path(__file__).parent / "files"
RULE = '[[endpoints]]\nlisten = "a:1"\nremote = "b:1"\n'


def problems(path: Path | str | None = None, **more: Any) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load(path, **more)
    return list(caught.value.problems)


def error(path: Path | str | None = None, **more: Any) -> str:
    (problem,) = problems(path, **more)
    return str(problem)


def rules(loaded: Loaded) -> list[tuple[str, str]]:
    return [(endpoint.listen, endpoint.remote) for endpoint in loaded.config.endpoints]


def test_basic() -> None:
    loaded = load(FILES / "basic.toml")
    assert rules(loaded) == [
        ("0.0.0.0:5000", "192.0.2.10:443"),
        ("0.0.0.0:10000", "www.example.com:443"),
    ]
    assert (loaded.warnings, loaded.files) == ([], [FILES / "basic.toml"])


def test_full() -> None:
    loaded = load(str(FILES / "full.toml"))
    assert loaded.warnings == []
    config = effective(loaded.config)
    assert (config.log.level, config.dns.cache_size) == ("warn", 256)
    first, second = config.endpoints
    assert (first.network.use_udp, first.network.tcp_timeout) == (True, 5)
    assert (second.network.use_udp, second.network.tcp_timeout) == (False, 9)
    assert (second.through, second.interface, second.listen_interface) == (
        "[::]:0",
        "eth0",
        "eth1",
    )


def test_the_same_in_three_formats() -> None:
    loaded = [load(FILES / name) for name in ("good.toml", "good.json", "good.yaml")]
    expected: dict[str, Any] = {
        "log": {"level": "info", "output": "/var/log/relay.log"},
        "network": {"use_udp": True, "tcp_timeout": 300, "udp_timeout": 30},
        "endpoints": [
            {"listen": "0.0.0.0:5000", "remote": "192.0.2.10:5000"},
            {
                "listen": ":::52225",
                "remote": "relay.example.net:52225",
                "through": "192.0.2.1",
            },
        ],
    }
    for each in loaded:
        assert each.config.model_dump(exclude_unset=True) == expected
        assert [warning.key for warning in each.warnings] == [
            "network.zero_copy",
            "network.fast_open",
        ]
        assert all("no effect" in warning.message for warning in each.warnings)


def test_legacy() -> None:
    loaded = load(FILES / "legacy.json")
    assert rules(loaded) == [
        ("0.0.0.0:30000", "one.example.com:443"),
        ("0.0.0.0:30001", "two.example.com:443"),
        ("0.0.0.0:30002", "one.example.com:443"),
        ("0.0.0.0:65535", "one.example.com:443"),
    ]
    assert "legacy" in loaded.warnings[0].message


def test_a_wrong_address_of_a_legacy_file_is_told_once_and_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    content = json.loads((FILES / "legacy.json").read_text())
    content["remote_addresses"] = ["a b"]
    path.write_text(json.dumps(content, indent=1))
    found = [problem for problem in problems(path) if problem.severity == "error"]
    assert [(problem.key, problem.line) for problem in found] == [("remote_addresses[0]", 10)]


def test_a_folder() -> None:
    loaded = load(FILES / "folder")
    assert loaded.config.model_dump(exclude_unset=True) == {
        "log": {"level": "info", "output": "stderr"},
        "network": {"use_udp": True, "tcp_timeout": 8, "linger": 5},
        "endpoints": [
            {"listen": "127.0.0.1:9000", "remote": "old.example.com:90"},
            {"listen": "127.0.0.1:8080", "remote": "web.example.com:80"},
        ],
    }
    names = ["10-log.toml", "20-network.yaml", "services/old.json", "services/web.json"]
    assert loaded.files == [FILES / "folder" / name for name in names]


@pytest.mark.parametrize("written", [".", "./", "../.conf", "../.conf/"])
def test_the_folder_itself_is_never_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    folder = tmp_path / ".conf"
    folder.mkdir()
    (folder / "a.toml").write_text(RULE)
    monkeypatch.chdir(folder)
    assert len(load(written).files) == 1


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.toml").write_text(RULE)
    (tmp_path / "inner" / "up").symlink_to(tmp_path)
    (tmp_path / "b.toml").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text('[log]\nlevel = "info"\n')
    loaded = load(tmp_path)
    assert loaded.files == [tmp_path / "b.toml", tmp_path / "inner" / "a.toml"]


def test_a_link_to_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.toml").symlink_to(tmp_path / "nothing")
    assert error(tmp_path) == f"{tmp_path}/a.toml: can't be read: No such file or directory"


def test_a_folder_without_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("nothing")
    (tmp_path / "A.TOML").write_text("nothing")
    assert "no files to read in this folder" in error(tmp_path)


def test_a_folder_without_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 2)
    for name in ("a.toml", "b.toml", "c.toml"):
        (tmp_path / name).write_text("")
    assert any("more than 2 configuration files" in str(each) for each in problems(tmp_path))


@pytest.mark.parametrize(
    ("path", "why"),
    [("/no/such/file.toml", "No such file or directory"), ("a\0b", "null ")],
)
def test_what_can_not_be_read_is_told(path: str, why: str) -> None:
    assert why in error(path)


def test_a_file_that_fails_while_it_is_read_is_told() -> None:
    # Nothing is mapped at address 0, whoever asks.
    assert error("/proc/self/mem") == "/proc/self/mem: can't be read: Input/output error"


@pytest.mark.parametrize("text", [RULE, '{"endpoints": [{"listen": "a:1", "remote": "b:1"}]}'])
def test_a_pipe(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(text,))
    writer.start()
    loaded = load(path)
    writer.join()
    assert rules(loaded) == [("a:1", "b:1")]


def test_standard_input() -> None:
    program = "from qanat.config.load import load; print(len(load('/dev/stdin').config.endpoints))"
    run = subprocess.run(
        [sys.executable, "-c", program],
        input=RULE,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert run.stdout == "1\n"


def test_a_file_without_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 2**20)
    assert error("/dev/zero") == "/dev/zero: is larger than 1 MiB"


def test_a_text() -> None:
    loaded = load(text=RULE)
    assert (rules(loaded), loaded.files) == ([("a:1", "b:1")], [])
    assert error(text="[[endpoints]]\nremote = 'b:1'\n") == (
        'REALM_CONF:1:1: endpoints[0].listen: is missing (listen = "0.0.0.0:5000")'
    )
    assert load(text='{"endpoints": [{"local": "a:1", "remote": "b:1"}]}').config.endpoints


def test_a_path_or_a_text() -> None:
    with pytest.raises(TypeError):
        load()
    with pytest.raises(TypeError):
        load("a", text="b")


@pytest.mark.parametrize("text", ["", "endpoints = []", "[log]\n", "endpoints: []", "{}"])
def test_no_endpoints(text: str, tmp_path: Path) -> None:
    assert "no endpoints" in error(text=text)
    (tmp_path / "a.toml").write_text("")
    assert "no endpoints" in error(tmp_path)


def test_no_endpoints_is_not_said_when_they_are_there_but_wrong() -> None:
    assert "no endpoints" not in str(problems(text="[[endpoints]]\nlisten = 5\n"))


def test_every_mistake_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[log]\nlevel = "Info"\n[network]\ntcp_keepalive = 99999\n')
    (tmp_path / "b.json").write_text('{"endpoints": [\n {"listen": "a:1"}],\n "drian": 3}')
    (tmp_path / "c.yaml").write_text("endpoints: [\n")
    (tmp_path / "d.toml").write_bytes(b"\xff")
    (tmp_path / "e.yaml").write_text(
        "endpoints:\n"
        "- {listen: 'x:1', remote: 'y:1'}\n"
        "- {listen: 'x:1', remote: 'http://y:1'}\n"
        "- {listen: 'x:1', remote: 'z:1'}\n"
        "dns: {nameservers: ['a b', 'c'], min_ttl: 9, max_ttl: 5}\n"
    )
    found = [
        (Path(problem.file or "").name, problem.line, problem.key, problem.severity)
        for problem in problems(tmp_path)
    ]
    assert found == [
        ("a.toml", 2, "log.level", "error"),
        ("a.toml", 4, "network.tcp_keepalive", "error"),
        ("b.json", 2, "endpoints[0].remote", "error"),
        ("b.json", 3, "drian", "warning"),
        ("c.yaml", 2, None, "error"),
        ("d.toml", 1, None, "error"),
        ("e.yaml", 3, "endpoints[1].remote", "error"),
        ("e.yaml", 4, "endpoints[2].listen", "error"),
        ("e.yaml", 5, "dns.nameservers[0]", "error"),
        ("e.yaml", 5, "dns.min_ttl", "error"),
    ]


def test_each_mistake_has_file_line_column_key_value_and_what_would_be_right(
    tmp_path: Path,
) -> None:
    path = tmp_path / "relay.toml"
    path.write_text('[[endpoints]]\nlisten = "0.0.0.0:5000"\nremote = "http://example.com:80/"\n')
    assert error(path) == (
        f'{path}:3:1: endpoints[0].remote = "http://example.com:80/": '
        "a URL, not an address (example.com:80)"
    )


def test_what_is_not_built_yet_is_told_at_the_exact_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qanat.config.unbuilt.UNBUILT", {"balance": "balancing is"})
    found = problems(FILES / "balance.toml")
    assert [(problem.line, problem.key) for problem in found] == [
        (5, "endpoints[0].balance"),
        (11, "endpoints[1].balance"),
    ]
    assert all("not yet supported" in problem.message for problem in found)


@pytest.mark.parametrize("name", ["balance.toml", "tls.toml", "ws.toml", "wss.toml", "sni.yaml"])
def test_files_of_every_kind(name: str) -> None:
    loaded = load(FILES / name)
    assert loaded.warnings == []
    assert loaded.config.endpoints


def test_mistakes_in_tables_within_tables_are_told_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(
        """
[[endpoints]]
listen = ":1"
remote = "a:1"
[endpoints.listen_transport]
tls = { servername = "a", aplpn = ["h2"] }
[endpoints.network.check]
kind = "http"
statsu = [200]
[[endpoints.route]]
sni = "*.*.a"
remote = "b"
"""
    )
    assert [str(problem).removeprefix(f"{path}:") for problem in problems(path)] == [
        "6:27: endpoints[0].listen_transport.tls.aplpn: unknown key (did you mean alpn?)",
        "9:1: endpoints[0].network.check.statsu: unknown key (did you mean status?)",
        (
            '11:1: endpoints[0].route[0].sni[0] = "*.*.a": a * stands for the first part of a '
            "name alone (as *.example.com)"
        ),
        (
            '12:1: endpoints[0].route[0].remote = "b": no port (host:port, as example.com:443 or '
            "[2001:db8::1]:443)"
        ),
    ]


def test_overrides() -> None:
    loaded = load(text=RULE, overrides=Overrides(use_udp=True, log_level="debug"))
    assert effective(loaded.config).endpoints[0].network.use_udp
    assert loaded.config.log.level == "debug"
    assert error(text=RULE, overrides=Overrides(tcp_keepalive=99_999)).startswith("--tcp-keepalive")


def test_a_file_that_does_not_change_loads_to_the_same() -> None:
    once, again = load(FILES / "full.toml"), load(FILES / "full.toml")
    assert once == again
    assert isinstance(once.config, Config)


def test_thousands_of_endpoints_are_no_matter(tmp_path: Path) -> None:
    rows = [
        {"listen": f"0.0.0.0:{10_000 + n}", "remote": f"h{n}.example:80", "network": {"linger": n}}
        for n in range(2000)
    ]
    text = "".join(
        f'[[endpoints]]\nlisten = "{row["listen"]}"\nremote = "{row["remote"]}"\n'
        f"network = {{ linger = {n} }}\n"
        for n, row in enumerate(rows)
    )
    (tmp_path / "a.toml").write_text(text)
    (tmp_path / "a.json").write_text(json.dumps({"endpoints": rows}))
    (tmp_path / "a.yaml").write_text(json.dumps({"endpoints": rows}, indent=1))
    for name in ("a.toml", "a.json", "a.yaml"):
        begun = time.process_time()
        assert len(load(tmp_path / name).config.endpoints) == 2000
        # 0.06 s when this was written. What is guarded against is work that grows with the square.
        assert time.process_time() - begun < 3


def test_thousands_of_mistakes_are_no_matter_either() -> None:
    text = "".join(f'[[endpoints]]\nlisten = "h:{n}"\nspeed = 1\n' for n in range(1, 2001))
    begun = time.process_time()
    assert len(problems(text=text)) == 2001
    assert time.process_time() - begun < 5


def test_a_start_reads_with_no_more_than_it_needs() -> None:
    """Each reader is imported for its own format alone, and nothing that only mistakes need."""
    program = (
        "import sys\n"
        "from qanat.config.load import load\n"
        "load(sys.argv[1])\n"
        "print(*sorted(sys.modules.keys() & {'yaml', 'tomllib', 'difflib', 'ast', 'click'}))\n"
    )
    found = {}
    for name in ("basic.toml", "good.json"):
        run = subprocess.run(
            [sys.executable, "-c", program, str(FILES / name)],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
        found[name] = set(run.stdout.split())
    assert "yaml" not in found["basic.toml"] | found["good.json"]
    assert "tomllib" not in found["good.json"]
    assert not found["basic.toml"] & {"difflib", "click"}
