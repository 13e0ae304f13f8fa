"""Sets of networks, in which IPv4 inside of IPv6 is the IPv4 address that it stands for."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

__all__ = ["Ip", "IpNetwork", "NetworkSet"]

Ip = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")


class NetworkSet:
    """Thousands of networks, looked up by their lengths: at most 33 or 129 comparisons.

    :raises ValueError: one of them is none. Bits behind its length do not matter.
    """

    __slots__ = ("_by_length", "_count")

    def __init__(self, networks: Iterable[str | IpNetwork] = ()) -> None:
        found: dict[tuple[int, int], set[int]] = {}
        self._count = 0
        for network in map(_parsed, networks):
            shift = network.max_prefixlen - network.prefixlen
            found.setdefault((network.version, shift), set()).add(
                int(network.network_address) >> shift
            )
            self._count += 1
        self._by_length = sorted(
            (version, shift, frozenset(prefixes)) for (version, shift), prefixes in found.items()
        )

    def __contains__(self, ip: Ip) -> bool:
        if isinstance(ip, IPv6Address):
            ip = ip.ipv4_mapped or ip
        number, version = int(ip), ip.version
        return any(
            of == version and number >> shift in prefixes for of, shift, prefixes in self._by_length
        )

    def __len__(self) -> int:
        return self._count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NetworkSet) and self._by_length == other._by_length

    def __hash__(self) -> int:
        return hash(tuple(self._by_length))


def _parsed(network: str | IpNetwork) -> IpNetwork:
    if isinstance(network, str):
        network = ip_network(network, strict=False)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        inside = network.network_address.ipv4_mapped
        return IPv4Network(f"{inside}/{network.prefixlen - 96}")
    return network
