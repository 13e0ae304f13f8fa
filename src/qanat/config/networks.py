"""Networks in access lists and lists of trusted senders. Pure."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from qanat.config.address import AddressError

__all__ = ["IpNetwork", "parse_network"]

IpNetwork = IPv4Network | IPv6Network

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_SHAPE: Final = "as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32"


@lru_cache(maxsize=8192)
def parse_network(text: str) -> IpNetwork:
    """``10.0.0.0/8``, ``2001:db8::/32``, or one address, which is a network of its own.

    What is written as IPv4 inside of IPv6 is the IPv4 network: clients are compared that way.
    """
    if text != text.strip():
        raise AddressError("blanks around the network", text.strip() or _SHAPE)
    # A mask of digits and dots, as 255.255.255.0, is known to few readers; a scope has no place.
    address, slash, length = text.partition("/")
    if "%" in text or (slash and not (length.isascii() and length.isdecimal())):
        raise AddressError("is not a network", _SHAPE)
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    try:
        network = ip_network(f"{address}{slash}{length}", strict=False)
    except ValueError:
        raise AddressError("is not a network", _SHAPE) from None
    if slash and str(network.network_address) != str(ip_network(address)[0]):
        raise AddressError(
            f"{address} is one address inside of a network", f"{network}, or {address} alone"
        )
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        inside = network.network_address.ipv4_mapped
        return IPv4Network(f"{inside}/{network.prefixlen - 96}")
    return network
