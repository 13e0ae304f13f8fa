"""What can be told only of a whole configuration: keys that contradict or disturb one another.

Pure; asks the origins where things stand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, TypeAlias

from qanat.config.address import Host, HostName
from qanat.config.explain import simple
from qanat.config.models import Config, Endpoint, Network
from qanat.config.origins import Origins
from qanat.config.places import KeyPath, dotted
from qanat.config.transport_options import LISTEN, REMOTE
from qanat.config.transports import transport_notices
from qanat.errors import ABSENT, Problem

__all__ = ["check"]

_Place: TypeAlias = tuple[str, Host, str | None]
"""A protocol, a host and a device: within it each port can be had once."""

_HERE: Final = frozenset({"localhost", "localhost."})


def check(config: Config, origins: Origins) -> list[Problem]:
    """Errors and warnings. Each endpoint's ``network`` must be complete."""
    return [
        *_dns(config, origins),
        *_taken(config, origins),
        *_datagrams(config, origins),
        *_Warnings(config, origins).all(),
    ]


def _dns(config: Config, origins: Origins) -> Iterator[Problem]:
    dns = config.dns
    if dns.min_ttl <= dns.max_ttl:
        return
    if "min_ttl" in dns.model_fields_set:
        unset = "" if "max_ttl" in dns.model_fields_set else ", its default"
        message = f"must not be above max_ttl ({dns.max_ttl}{unset})"
        yield origins.problem(("dns", "min_ttl"), message, value=dns.min_ttl)
    else:
        message = f"must not be below min_ttl ({dns.min_ttl})"
        yield origins.problem(("dns", "max_ttl"), message, value=dns.max_ttl)


def _taken(config: Config, origins: Origins) -> Iterator[Problem]:
    """Listening addresses that two endpoints want.

    The kernel would not refuse: an engine of several threads shares its ports with itself, and
    each endpoint would get some of the clients.
    """
    wanted: dict[_Place, list[tuple[int, int, int]]] = defaultdict(list)
    for number, endpoint in enumerate(config.endpoints):
        listen = endpoint.listen_address
        if listen.ports.first == 0:
            continue
        for protocol in _protocols(endpoint):
            group = (protocol, listen.host, endpoint.listen_interface)
            wanted[group].append((listen.ports.first, listen.ports.last, number))
    clashes: dict[int, tuple[str, int, int]] = {}
    for (protocol, *_), spans in wanted.items():
        spans.sort(key=lambda span: (span[0], span[2]))
        highest, holder = 0, -1
        for first, last, number in spans:
            if first <= highest:
                later, earlier = max(number, holder), min(number, holder)
                clashes.setdefault(later, (protocol, first, earlier))
            if last > highest:
                highest, holder = last, number
    for number in sorted(clashes):
        protocol, port, other = clashes[number]
        endpoint = config.endpoints[number]
        yield origins.problem(
            ("endpoints", number, "listen"),
            f"{protocol} port {port} is taken by {_where(origins, other)} already",
            value=simple(endpoint.listen),
        )


def _where(origins: Origins, number: int) -> str:
    written, place = origins.locate(("endpoints", number))
    if place.line is None:
        return dotted(written)
    return f"{dotted(written)} in line {place.line}" + (
        f" of {place.file}"
        if len({source.document.file for source, _ in origins.endpoints}) > 1
        else ""
    )


def _protocols(endpoint: Endpoint) -> list[str]:
    network = endpoint.network
    names = [] if network.no_tcp else ["TCP"]
    return [*names, "UDP"] if network.use_udp else names


def _datagrams(config: Config, origins: Origins) -> Iterator[Problem]:
    """Carriers of datagrams at endpoints that carry something else."""
    for number, endpoint in enumerate(config.endpoints):
        listen, remote = endpoint.listen_wrapping, endpoint.remote_wrapping
        framed = listen is not None and listen.uot
        if framed and endpoint.network.no_tcp:
            yield origins.problem(
                ("endpoints", number, "listen_transport"),
                "uot brings datagrams by TCP, which is off",
                hint="no_tcp = false",
            )
        # What comes in frames goes out in frames as it is.
        if remote is not None and remote.uot and not framed and not endpoint.network.no_tcp:
            yield origins.problem(
                ("endpoints", number, "remote_transport"),
                "uot is for UDP: the other side would take TCP flows for datagrams",
                hint="no_tcp = true, and use_udp = true",
            )


@dataclass(slots=True)
class _Topic:
    """One warning, which many endpoints may give rise to."""

    path: KeyPath
    message: str
    hint: str | None
    value: object
    numbers: list[int] = field(default_factory=list)


class _Warnings:
    def __init__(self, config: Config, origins: Origins) -> None:
        self._config = config
        self._origins = origins
        self._groups: dict[str, _Topic] = {}

    def all(self) -> Iterator[Problem]:
        for number, endpoint in enumerate(self._config.endpoints):
            self._endpoint(number, endpoint)
        for group in self._groups.values():
            others = len(group.numbers) - 1
            more = "" if others == 0 else f" (and in {others} more)"
            yield self._origins.problem(
                group.path,
                f"{group.message}{more}",
                value=group.value,
                hint=group.hint,
                severity="warning",
            )

    def _endpoint(self, number: int, endpoint: Endpoint) -> None:
        network = endpoint.network
        if network.no_tcp and not network.use_udp:
            self._add(
                number,
                "no_tcp",
                "neither TCP nor UDP is left: the endpoint does nothing",
                "use_udp = true relays UDP",
                True,
            )
        if network.use_udp and network.udp_timeout == 0:
            self._add(
                number,
                "udp_timeout",
                "UDP associations never end of themselves",
                "max_associations alone bounds them",
                0,
            )
        self._remotes(number, endpoint)
        self._wrapped(number, endpoint)
        if endpoint.hook is not None and network.use_udp:
            self._add(
                number,
                "hook",
                "decides about TCP alone: UDP comes in unasked",
                "allow and deny hold for both",
                endpoint.hook,
            )
        if network.accept_proxy_from and not network.accept_proxy:
            self._add(
                number,
                "accept_proxy_from",
                "is not used while accept_proxy is false",
                "accept_proxy = true, or optional",
                None,
            )
        if _protocols(endpoint) and _returns(endpoint):
            self._add(
                number,
                "remote",
                "is the endpoint's own listening address: flows would come back for ever",
                None,
                simple(endpoint.remote),
            )

    def _remotes(self, number: int, endpoint: Endpoint) -> None:
        chosen = endpoint.balancing.strategy != "off" or endpoint.failover
        if endpoint.extra_remotes and not chosen and endpoint.hook is None:
            self._add(
                number,
                "extra_remotes",
                "is not used while balance is off: flows go to remote alone",
                'balance = "roundrobin", or failover = true',
                None,
            )
        if endpoint.failover and not endpoint.extra_remotes:
            self._add(
                number,
                "failover",
                "there is no other remote to go to",
                "extra_remotes has the others",
                True,
            )

    def _wrapped(self, number: int, endpoint: Endpoint) -> None:
        for key, written, side in (
            ("listen_transport", endpoint.listen_transport, LISTEN),
            ("remote_transport", endpoint.remote_transport, REMOTE),
        ):
            for notice in transport_notices(written, side):
                self._add(number, key, notice, None, None)
        network = endpoint.network
        if not _protocols(endpoint):
            return
        listen = endpoint.listen_wrapping
        if listen is not None and not listen.uot and network.no_tcp:
            self._add(number, "listen_transport", "is for clients by TCP, which is off", None, None)
        remote = endpoint.remote_wrapping
        if remote is None:
            return
        if network.use_udp and not remote.uot:
            self._add(
                number,
                "remote_transport",
                "wraps TCP alone: UDP goes out as it is",
                "uot carries it too, where the other side is a qanat with uot",
                None,
            )

    def _add(self, number: int, key: str, message: str, hint: str | None, value: object) -> None:
        path: KeyPath = ("endpoints", number, key)
        if key in Network.model_fields:
            path = self._network_path(number, key)
        group = self._groups.setdefault(
            f"{key} {message}", _Topic(path, message, hint, ABSENT if value is None else value)
        )
        group.numbers.append(number)

    def _network_path(self, number: int, key: str) -> KeyPath:
        """The key in the endpoint's own table, or in the file's."""
        own: KeyPath = ("endpoints", number, "network", key)
        if ("network", key) not in self._origins.fields:
            return own
        source, local = self._origins.endpoints[number]
        entries = source.content.get("endpoints", [])
        table = entries[local].get("network") if local < len(entries) else None
        return own if isinstance(table, dict) and key in table else ("network", key)


def _returns(endpoint: Endpoint) -> bool:
    listen, remote = endpoint.listen_address, endpoint.remote_address
    if endpoint.listen_interface or endpoint.interface or listen.ports.first == 0:
        return False
    if len(remote.ports) == 1:
        same_port = remote.ports.first in listen.ports
    else:
        same_port = listen.ports == remote.ports
    return same_port and _hears(listen.host, remote.host, endpoint.network.ipv6_only)


def _hears(listen: Host, remote: Host, ipv6_only: bool) -> bool:
    """Whether a listener on one host surely takes what is sent to the other."""
    if listen == remote:
        return True
    if isinstance(listen, HostName):
        return False
    if isinstance(remote, HostName):
        return remote.name.lower() in _HERE and (
            listen.is_unspecified or listen == ip_address("127.0.0.1")
        )
    both = listen.version == 6 and listen.is_unspecified and not ipv6_only
    if listen.version != remote.version and not both:
        return False
    here = remote.is_loopback or remote.is_unspecified
    # 127.0.0.2 may well be listened on by someone else while we have 127.0.0.1.
    return here and (listen.is_unspecified or (listen.is_loopback and remote.is_unspecified))
