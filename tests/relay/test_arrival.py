from __future__ import annotations

import dataclasses
from ipaddress import ip_address

import pytest

from qanat.relay.arrival import Arrival, Refuse


def arrival(client: str) -> Arrival:
    return Arrival(
        flow=1,
        endpoint="e",
        client=client,
        via=None,
        listener=None,
        first_bytes=b"",
        remotes=(),
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "fe80::1%2"])
def test_the_client_is_known_as_address_and_port(host: str) -> None:
    client = f"[{host}]:80" if ":" in host else f"{host}:80"
    assert arrival(client).client_ip == ip_address(host)
    assert arrival(client).client_port == 80


def test_nobody_changes_what_others_see() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        arrival("192.0.2.1:80").client = "else"  # type: ignore[misc]
    assert Refuse().reason == "refused by the hook"
