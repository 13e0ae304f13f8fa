"""A configuration becomes plans. Knows the models; the only I/O is resolving the names in it.

Names of remotes stay names, since the engine resolves those for each flow. Names to listen on, to
leave from and of name servers are resolved here, once, by the system.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import Any, TypeAlias

from qanat.config.address import Host, HostName, InterfaceName, PortRange, parse_nameserver
from qanat.config.models import Config, Endpoint, Network
from qanat.errors import ConfigError, Problem
from qanat.plan import EndpointPlan, LimitsPlan, RemotePlan, ResolverPlan, TcpPlan, UdpPlan

__all__ = ["overall_limits", "plans"]


def plans(config: Config) -> list[EndpointPlan]:
    """One plan for each port of each endpoint, in the order of the configuration.

    The id of a plan is the endpoint's name, or its ``listen`` as it is written; a range of ports
    gives an id for each port. An endpoint with neither TCP nor UDP gives no plan.

    Raises ConfigError with every name that can't be resolved and every address that is taken twice.
    """
    return _Planning(config).plans()


def overall_limits(config: Config) -> LimitsPlan:
    """The limits for all endpoints together."""
    return LimitsPlan(
        connections=config.limits.max_connections,
        connection_rate=config.limits.max_connection_rate,
        connections_per_client=config.limits.max_connections_per_client,
        associations=config.limits.max_associations,
    )


_Protocols: TypeAlias = tuple[TcpPlan | None, UdpPlan | None, LimitsPlan]


class _Planning:
    """One pass over a configuration, and what its endpoints share."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._problems: list[Problem] = []
        self._resolved: dict[str, str | OSError] = {}
        self._protocols: dict[tuple[object, ...], _Protocols] = {}
        self._ids: set[str] = set()
        self._listening: dict[tuple[object, ...], int] = {}

    def plans(self) -> list[EndpointPlan]:
        resolver = self._resolver()
        made = [
            plan
            for number, endpoint in enumerate(self._config.endpoints)
            for plan in self._endpoint(number, endpoint, resolver)
        ]
        if self._problems:
            raise ConfigError(self._problems)
        return made

    def _endpoint(
        self, number: int, endpoint: Endpoint, resolver: ResolverPlan
    ) -> Iterator[EndpointPlan]:
        network = _merged(endpoint.network, self._config.network)
        tcp, udp, limits = self._carried(network)
        if tcp is None and udp is None:
            return
        listen = endpoint.listen_address
        remote = endpoint.remote_address
        host = self._address(listen.host, f"endpoints[{number}].listen", endpoint.listen)
        through, device = self._through(number, endpoint)
        for index, port in enumerate(listen.ports):
            plan = EndpointPlan(
                id=self._id(endpoint, listen.ports, port),
                listen=f"{host}:{port}",
                remotes=(RemotePlan(host=str(remote.host), port=remote.port_at(index)),),
                tcp=tcp,
                udp=udp,
                ipv6_only=bool(network["ipv6_only"]),
                listen_interface=endpoint.listen_interface,
                through=through,
                through_interface=device,
                interface=endpoint.interface,
                limits=limits,
                resolver=resolver,
            )
            if self._is_free(number, endpoint, plan):
                yield plan

    def _id(self, endpoint: Endpoint, ports: PortRange, port: int) -> str:
        id = endpoint.name or endpoint.listen
        if len(ports) > 1:
            id = f"{endpoint.name or endpoint.listen.rpartition(':')[0]}:{port}"
        unique, count = id, 1
        while unique in self._ids:
            count += 1
            unique = f"{id}#{count}"
        self._ids.add(unique)
        return unique

    def _is_free(self, number: int, endpoint: Endpoint, plan: EndpointPlan) -> bool:
        """The kernel would let two of our own sockets share an address, each getting a part."""
        if plan.listen.endswith(":0"):
            return True
        for protocol in ("tcp", "udp"):
            if getattr(plan, protocol) is None:
                continue
            first = self._listening.setdefault(
                (protocol, plan.listen, plan.listen_interface), number
            )
            if first != number:
                other = self._config.endpoints[first]
                self._problem(
                    f"endpoints[{number}].listen",
                    endpoint.listen,
                    f"{protocol.upper()} on {plan.listen} belongs to endpoints[{first}] "
                    f"({other.name or other.listen}) already",
                )
                return False
        return True

    def _carried(self, network: dict[str, Any]) -> _Protocols:
        # Most endpoints of a large configuration say the same; equal plans are then one object.
        key = tuple(network.values())
        made = self._protocols.get(key)
        if made is None:
            made = self._protocols[key] = _protocols(network)
        return made

    def _through(self, number: int, endpoint: Endpoint) -> tuple[str | None, str | None]:
        through = endpoint.through_address
        if through is None:
            return None, None
        if isinstance(through.host, InterfaceName):
            return None, through.host.name
        key = f"endpoints[{number}].through"
        return f"{self._address(through.host, key, endpoint.through)}:{through.port}", None

    def _resolver(self) -> ResolverPlan:
        dns = self._config.dns
        servers = []
        for number, text in enumerate(dns.nameservers):
            server = parse_nameserver(text)
            host = self._address(server.host, f"dns.nameservers[{number}]", text)
            servers.append(f"{host}:{server.port}")
        return ResolverPlan(
            mode=dns.mode,
            protocol=dns.protocol,
            nameservers=tuple(servers),
            min_ttl=dns.min_ttl,
            max_ttl=dns.max_ttl,
            cache_size=dns.cache_size,
        )

    def _address(self, host: Host, key: str, written: object) -> str:
        """The literal of a host, IPv6 in brackets; a name's first address."""
        if isinstance(host, IPv6Address):
            return f"[{host}]"
        if not isinstance(host, HostName):
            return str(host)
        try:
            return self._resolve(host.name)
        except OSError as error:
            why = error.strerror or str(error)
            self._problem(key, written, f"{host.name} has no address: {why}")
            return ""

    def _resolve(self, name: str) -> str:
        found = self._resolved.get(name)
        if found is None:
            try:
                first = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0]
                address = str(first[4][0])
                found = f"[{address}]" if first[0] == socket.AF_INET6 else address
            except OSError as error:
                found = error
            self._resolved[name] = found
        if isinstance(found, OSError):
            raise found
        return found

    def _problem(self, key: str, value: object, message: str) -> None:
        self._problems.append(Problem(message, key=key, value=value))


def _merged(own: Network, common: Network) -> dict[str, Any]:
    """Each field from the endpoint if it says something, else from the configuration."""
    said = own.model_fields_set
    return {name: getattr(own if name in said else common, name) for name in Network.model_fields}


def _protocols(network: dict[str, Any]) -> _Protocols:
    tcp = TcpPlan(
        connect_timeout=float(network["tcp_timeout"]),
        keepalive=network["tcp_keepalive"],
        keepalive_probes=network["tcp_keepalive_probe"],
        accept_mptcp=network["accept_mptcp"],
        send_mptcp=network["send_mptcp"],
        idle_timeout=float(network["idle_timeout"]),
        linger=float(network["linger"]),
    )
    udp = UdpPlan(timeout=float(network["udp_timeout"]))
    limits = LimitsPlan(
        connections=network["max_connections"],
        connection_rate=network["max_connection_rate"],
        connections_per_client=network["max_connections_per_client"],
        associations=network["max_associations"],
    )
    return (None if network["no_tcp"] else tcp), (udp if network["use_udp"] else None), limits
