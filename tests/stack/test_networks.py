"""Sets of networks, compared with the standard library's."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.stack.networks import NetworkSet

__all__: list[str] = []

four = st.builds(
    lambda number, length: IPv4Network((number, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
six = st.builds(
    lambda number, length: IPv6Network((number, length), strict=False),
    st.integers(0, 2**128 - 1),
    st.integers(0, 128),
)


@given(st.lists(four | six, max_size=20), st.data())
def test_as_one_by_one(networks: list[IPv4Network | IPv6Network], data: st.DataObject) -> None:
    made = NetworkSet(networks)
    assert len(made) == len(networks)
    near = [network.network_address for network in networks] or [ip_address("::1")]
    ip = data.draw(st.sampled_from(near) | st.ip_addresses())
    mapped = isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None
    if not mapped:
        assert (ip in made) == any(ip in network for network in networks)
    if isinstance(ip, IPv4Address):
        assert (IPv6Address(f"::ffff:{ip}") in made) == (ip in made)


def test_what_is_written_as_ipv4_in_ipv6_is_ipv4() -> None:
    made = NetworkSet(["::ffff:10.0.0.0/104"])
    assert ip_address("10.1.2.3") in made
    assert ip_address("::ffff:10.1.2.3") in made
    assert ip_address("11.1.2.3") not in made
    assert made == NetworkSet([ip_network("10.0.0.0/8")])
    assert hash(made) == hash(NetworkSet(["10.7.0.0/8"]))


def test_what_is_no_network_is_told() -> None:
    with pytest.raises(ValueError, match=r"name\.test"):
        NetworkSet(["10.0.0.0/8", "name.test"])
    assert not NetworkSet()
