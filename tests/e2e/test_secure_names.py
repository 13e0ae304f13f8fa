"""Targets with names, asked of a name server behind TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.certificates import Authority
from tests.support.peers import Target, flow, resets, talk
from tests.support.secure_name_server import SecureNameServer, secure_name_server

NAME = "dns.example"

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def names(authority: Authority) -> Iterator[SecureNameServer]:
    with secure_name_server("127.0.0.2", *authority.issue(NAME, f"DNS:{NAME}")) as running:
        yield running


@pytest.fixture
def target() -> Iterator[Target]:
    with Target("127.0.0.2") as running:
        yield running


@pytest.mark.parametrize(
    ("server", "way"),
    [
        ("tls://127.0.0.1:{port}#" + NAME, "dot"),
        ("https://127.0.0.1:{port}/dns-query#" + NAME, "doh"),
    ],
    ids=["tls", "https"],
)
def test_a_name_is_asked_for_behind_tls(
    start: Start,
    names: SecureNameServer,
    authority: Authority,
    target: Target,
    server: str,
    way: str,
) -> None:
    relay = start(
        *("-l", "127.0.0.1:0", "-r", f"db.test:{target.port}"),
        *("--dns-servers", server.format(port=names.port)),
        SSL_CERT_FILE=str(authority.cert),
    )
    with flow(relay.address, target) as (client, reached):
        talk(client, reached)
    assert set(names.asked) == {way}


def test_a_server_that_can_not_prove_its_name_is_asked_nothing(
    start: Start, names: SecureNameServer, authority: Authority, target: Target
) -> None:
    relay = start(
        *("-l", "127.0.0.1:0", "-r", f"db.test:{target.port}"),
        *("--dns-servers", f"tls://127.0.0.1:{names.port}#other.example"),
        SSL_CERT_FILE=str(authority.cert),
    )
    assert resets(relay.address)
    assert names.asked == []
