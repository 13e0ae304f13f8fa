"""A desk for each test, and certificates for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.certificates import Authority
from tests.support.desks import Held

__all__: list[str] = []


@pytest.fixture
def held() -> Iterator[Held]:
    with Held.open() as held:
        yield held


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    authority.issue("server", "DNS:server.test")
    authority.issue("alice", "DNS:alice.test")
    return authority
