"""The configuration of a proxy: what a file says, what the line says, and every mistake named."""

from __future__ import annotations

from pathlib import Path

import pytest

from qanat.config.proxy_file import LARGEST, load_proxy
from qanat.errors import ConfigError

__all__: list[str] = []


def written(folder: Path, text: str) -> Path:
    path = folder / "proxy.toml"
    path.write_text(text)
    return path


def mistakes(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_proxy(written(folder, text), {})
    return [str(problem) for problem in caught.value.problems]


def test_a_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        socks5 = ":1080"
        http = ["127.0.0.1:8080", "[::1]:8080"]
        rules = ["deny port=25", "allow all"]
        via = ["socks5h://user:secret@192.0.2.1:1080"]
        tls = ["cert.pem", "key.pem"]
        [limits]
        rate_up = "1MB/s"
        max_connections_per_user = 5
        """,
    )
    config = load_proxy(path, {}).config
    assert config.socks5 == ["[::]:1080"]
    assert config.http == ["127.0.0.1:8080", "[::1]:8080"]
    assert config.limits.rate_up == 1_000_000
    assert config.limits.max_connections_per_user == 5
    assert config.limits.max_connections == 10_000


def test_the_line_wins_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, 'mixed = ":1"\nguest = false\n[limits]\nrate_up = 5\nrate_down = 6\n')
    config = load_proxy(path, {"mixed": [":2"], "limits": {"rate_up": 7}}).config
    assert config.mixed == ["[::]:2"]
    assert (config.limits.rate_up, config.limits.rate_down) == (7, 6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('socks5 = "x"', "proxy.toml:1:1: socks5[0]"),
        ('mixed = ":1"\nrules = ["alow x"]', 'rules[0] = "alow x": "alow" is neither'),
        ('mixed = ":1"\nvia = "ftp://x"', '"ftp" is no kind of proxy'),
        ('mixed = ":1"\nvia = "http://x/path"', "is no URL of a proxy"),
        ('mixed = ":1"\nvia = "http://[::1"', "is no URL of a proxy"),
        ('mixed = ":1"\ntls = "cert.pem"', "tls"),
        ('mixed = ":1"\nguest = true', "guest"),
        ('mixed = ":1"\nmixd = 1', "did you mean mixed?"),
        ('mixed = ":1-9"', "one port is wanted"),
        ("drain = 2", "there is nothing to listen on"),
        ('mixed = ":1"\ndrain = -1', "drain = -1"),
        ("mixed = ", "not TOML"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, text: str, said: str) -> None:
    lines = mistakes(tmp_path, text)
    assert any(said in line for line in lines), lines
    assert all("proxy.toml" in line for line in lines)


def test_a_password_in_a_url_is_never_shown(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, 'mixed = ":1"\nvia = "ftp://john:hunter2@x"')
    assert "hunter2" not in line
    assert "ftp://***@x" in line


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        load_proxy(tmp_path / "none.toml", {})
    big = tmp_path / "big.toml"
    big.write_bytes(b"#" * (LARGEST + 1))
    with pytest.raises(ConfigError, match="larger than"):
        load_proxy(big, {})


def test_a_stack_of_ones_own_needs_no_address() -> None:
    assert load_proxy(None, {}, app=True).config.mixed == []
    with pytest.raises(ConfigError, match="nothing to listen on"):
        load_proxy(None, {})
