"""A configuration becomes plans. Knows the models; resolves names, and looks at files named in it.

Names of remotes stay names, since the engine resolves those for each flow. Names to listen on, to
leave from and of name servers are resolved here, once, by the system.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address
from typing import Any

from qanat.config.address import (
    Host,
    HostName,
    InterfaceName,
    PortRange,
    RemoteAddress,
    parse_remote,
)
from qanat.config.balancing import Strategy
from qanat.config.dns_servers import SecureNameServer, parse_server
from qanat.config.hook_name import parse_hook
from qanat.config.models import Config, Endpoint, Network
from qanat.errors import ConfigError, Problem
from qanat.plan import (
    EndpointPlan,
    HookPlan,
    LimitsPlan,
    ListenTransportPlan,
    RemotePlan,
    RemoteTransportPlan,
    ResolverPlan,
    RoutingPlan,
    RulePlan,
)
from qanat.relay.certificate_files import CertificateFiles
from qanat.relay.network_plans import Carried, carried, networks
from qanat.relay.transport_plans import (
    WrongFile,
    listen_plan,
    remote_plan,
    wrong_listen_files,
    wrong_remote_files,
)

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


class _Planning:
    """One pass over a configuration, and what its endpoints share."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._problems: list[Problem] = []
        self._resolved: dict[str, str | OSError] = {}
        self._carryings: dict[tuple[object, ...], Carried] = {}
        self._files = CertificateFiles()
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
        carrying = self._carried(_merged(endpoint.network, self._config.network))
        if carrying.tcp is None and carrying.udp is None:
            return
        listen = endpoint.listen_address
        host = self._address(listen.host, f"endpoints[{number}].listen", endpoint.listen)
        through, device = self._through(number, endpoint)
        wrapped = self._wrapped(number, endpoint, carrying.handshake_timeout)
        hook = self._hook(number, endpoint)
        balance, remotes = _remotes(endpoint)
        weights = endpoint.balancing.weights if balance not in ("off", "failover") else ()
        failover = endpoint.failover or balance == "failover"
        for index, port in enumerate(listen.ports):
            plan = EndpointPlan(
                id=self._id(endpoint, listen.ports, port),
                listen=f"{host}:{port}",
                remotes=_at(remotes, index),
                weights=weights if len(set(weights)) > 1 else (),
                balance=balance,
                tcp=carrying.tcp,
                udp=carrying.udp,
                ipv6_only=carrying.ipv6_only,
                listen_interface=endpoint.listen_interface,
                through=through,
                through_interface=device,
                interface=endpoint.interface,
                limits=carrying.limits,
                resolver=resolver,
                listen_transport=wrapped[0],
                remote_transport=wrapped[1],
                proxy=carrying.proxy,
                health=carrying.health if failover else carrying.checks,
                routing=_routing(endpoint, index),
                allow=networks(endpoint.allow),
                deny=networks(endpoint.deny),
                rates=carrying.rates,
                quota=endpoint.quota,
                hook=hook,
            )
            if self._is_free(number, endpoint, plan):
                yield plan

    def _wrapped(
        self, number: int, endpoint: Endpoint, handshake_timeout: float
    ) -> tuple[ListenTransportPlan | None, RemoteTransportPlan | None]:
        listen, remote = endpoint.listen_wrapping, endpoint.remote_wrapping
        if listen is not None and listen.tls is not None:
            found = wrong_listen_files(listen.tls, self._files)
            self._wrong_files(number, "listen_transport", endpoint.listen_transport, found)
        if remote is not None and remote.tls is not None:
            found = wrong_remote_files(remote.tls, self._files)
            self._wrong_files(number, "remote_transport", endpoint.remote_transport, found)
        return (
            None if listen is None else listen_plan(listen, handshake_timeout),
            None if remote is None else remote_plan(remote, handshake_timeout),
        )

    def _wrong_files(
        self, number: int, key: str, written: object, found: Iterator[WrongFile]
    ) -> None:
        for inner, path, why in found:
            where = f"endpoints[{number}].{key}"
            if isinstance(written, str):
                self._problem(where, written, f"{inner.rpartition('.')[2]}: {path} {why}")
            else:
                self._problem(f"{where}.{inner}", path, f"the file {why}")

    def _hook(self, number: int, endpoint: Endpoint) -> HookPlan | None:
        if endpoint.hook is None:
            return None
        name = parse_hook(endpoint.hook)
        why = None if name.file is None else self._files.exists(name.file)
        if why is not None:
            self._problem(f"endpoints[{number}].hook", endpoint.hook, f"the file {why}")
        return HookPlan(
            call=str(name),
            first_bytes=endpoint.hook_first_bytes,
            timeout=float(endpoint.hook_timeout),
            on_failure=endpoint.hook_on_failure,
        )

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

    def _carried(self, network: dict[str, Any]) -> Carried:
        # Most endpoints of a large configuration say the same; equal plans are then one object.
        key = tuple(
            tuple(value) if isinstance(value, list) else value for value in network.values()
        )
        made = self._carryings.get(key)
        if made is None:
            made = self._carryings[key] = carried(network)
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
            server = parse_server(text)
            host = self._address(server.host, f"dns.nameservers[{number}]", text)
            servers.append(
                server.at(host) if isinstance(server, SecureNameServer) else f"{host}:{server.port}"
            )
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


def _remotes(endpoint: Endpoint) -> tuple[Strategy, list[RemoteAddress]]:
    """How the engine chooses, and from what: not from remotes that nothing would choose."""
    strategy = endpoint.balancing.strategy
    texts = [endpoint.remote]
    if strategy != "off" or endpoint.failover or endpoint.hook is not None:
        texts += endpoint.extra_remotes
    if strategy == "off" and endpoint.failover:
        strategy = "failover"
    return strategy, [parse_remote(text) for text in texts]


def _at(remotes: Iterable[RemoteAddress], index: int) -> tuple[RemotePlan, ...]:
    """The remotes of the listener's port number ``index``."""
    return tuple(
        RemotePlan(host=str(remote.host), port=remote.port_at(index)) for remote in remotes
    )


def _routing(endpoint: Endpoint, index: int) -> RoutingPlan | None:
    if not endpoint.route:
        return None
    rules = []
    for route in endpoint.route:
        remotes = _at([parse_remote(text) for text in route.remotes()], index)
        rules += [
            RulePlan(kind=kind, pattern=pattern, remotes=remotes)
            for kind, pattern in route.patterns()
        ]
    return RoutingPlan(rules=tuple(rules), timeout=float(endpoint.route_timeout))
