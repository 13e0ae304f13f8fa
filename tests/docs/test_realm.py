"""The page for users of realm: no option and no key is left out, and each is shown by a test."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from qanat.cli.options import WITHOUT_EFFECT, relay_options
from qanat.config.transport_options import LISTEN, REMOTE

__all__: list[str] = []

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "realm.md"
VERDICTS = {"same", "better", "refused"}
WITHOUT_VERDICT = {"What realm's users asked for", "Faults that are not ours"}

KEYS = {
    "`log`": "level output",
    "`dns`": "mode protocol nameservers min_ttl max_ttl cache_size",
    "`network`": (
        "no_tcp use_udp ipv6_only tcp_timeout udp_timeout tcp_keepalive tcp_keepalive_probe "
        "send_mptcp accept_mptcp send_proxy send_proxy_version accept_proxy accept_proxy_timeout"
    ),
    "`endpoints`": (
        "listen remote extra_remotes balance through interface listen_interface network"
    ),
    "Words of `listen_transport` and `remote_transport`": (
        "ws host path mask tls sni alpn insecure 0rtt cert key servername ocsp"
    ),
}
"""What realm's files may hold."""

OPTIONS = (
    "help version daemon udp mtcp ntcp ipv6 tfo splice config listen remote through interface "
    "listen-interface listen-transport remote-transport nofile pipe-page pre-conn-hook log-level "
    "log-output dns-mode dns-min-ttl dns-max-ttl dns-cache-size dns-protocol dns-servers "
    "send-proxy send-proxy-version accept-proxy accept-proxy-timeout tcp-timeout udp-timeout "
    "tcp-keepalive tcp-keepalive-probe"
)


class Row(NamedTuple):
    section: str
    cells: list[str]

    @property
    def tests(self) -> list[str]:
        return re.findall(r"`([^`]+::[^`]+)`", self.cells[-1])


def rows() -> list[Row]:
    found, section = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("| ") and not line.endswith("shown by |"):
            found.append(Row(section, [cell.strip() for cell in line.strip("|").split(" |")]))
    return found


@cache
def names(path: str) -> frozenset[str]:
    """The functions of a file of tests, in Python or in Rust."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return frozenset(re.findall(r"^\s*(?:async )?(?:def|fn) (\w+)", text, re.MULTILINE))


def known(section: str) -> set[str]:
    first = " ".join(row.cells[0] for row in rows() if row.section == section)
    return {word.rstrip("=") for word in re.findall(r"`([^`]+)`", first)}


@pytest.mark.parametrize("test", sorted({test for row in rows() for test in row.tests}))
def test_every_test_on_the_page_exists(test: str) -> None:
    path, _, name = test.partition("::")
    assert name in names(path), f"{path} has no {name}"


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.cells[0])
def test_every_row_has_a_verdict_and_a_test(row: Row) -> None:
    if row.section in WITHOUT_VERDICT:
        assert row.tests or "not a relay's matter" in row.cells[1]
        return
    assert row.cells[1] in VERDICTS
    assert row.tests
    assert row.cells[1] != "refused" or len(row.cells[2]) > 50, "a refusal has a reason"


@pytest.mark.parametrize("section", KEYS)
def test_every_key_has_its_row(section: str) -> None:
    assert set(KEYS[section].split()) <= known(section)


def test_every_option_has_its_row() -> None:
    assert {f"--{name}" for name in OPTIONS.split()} <= known("Command line")


def test_the_page_knows_what_we_know() -> None:
    """What is listed here is no more than the program has, so that neither list can go astray."""
    ours = {name for option in relay_options() for name in option.opts}
    assert {f"--{name}" for name in OPTIONS.split()} - {"--help", "--version"} <= ours
    words = set(KEYS["Words of `listen_transport` and `remote_transport`"].split())
    assert words <= {*LISTEN.words, *LISTEN.keys, *REMOTE.words, *REMOTE.keys}
    assert set(WITHOUT_EFFECT) == {"tfo", "splice"}
