"""The stacks of ``qanat proxy``: what its configuration means, in services and layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from qanat.config.proxy import ProxyConfig
from qanat.observe.access import is_written
from qanat.proxy.accounts import Accounted, Accounts, WithinAllowance
from qanat.proxy.auth import Authenticator
from qanat.proxy.http import Forwarded, HttpProxy
from qanat.proxy.mixed import MixedProxy
from qanat.proxy.rules import ByRules, RulesInForce
from qanat.proxy.socks5 import Socks5Server
from qanat.proxy.socks_udp import FirstCandidate, UdpAssociate
from qanat.stack.address import Address
from qanat.stack.bridge import Bridge
from qanat.stack.connect.guard import Guard
from qanat.stack.connect.happy_eyeballs import HappyEyeballs
from qanat.stack.connect.resolve import Resolve
from qanat.stack.connect.resolver import Resolver
from qanat.stack.connect.target import Connector
from qanat.stack.connect.tcp import TcpConnector
from qanat.stack.connect.via import ViaProxy
from qanat.stack.courier import Courier
from qanat.stack.layers.engine_tls import EngineTls
from qanat.stack.relaying import Relay, RelayReport
from qanat.stack.service import Service, stack
from qanat.stack.stream.base import Stream
from qanat.stack.tls import TlsServerConfig

__all__ = ["Policy", "Stacks", "connector"]

_LOOKED_UP_HERE = ("socks5",)
"""Kinds of proxies that get addresses; the others look names up themselves."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the stacks ask, and what a reload may replace without touching them."""

    rules: RulesInForce
    accounts: Accounts
    auth: Authenticator | None
    own: Callable[[], Iterable[Address]]
    ended: Callable[[Bridge, RelayReport], Any]
    forwarded: Callable[[Forwarded], Any]


def connector(config: ProxyConfig, policy: Policy) -> Connector:
    """The way to a target: names, rules, guard, and a connection, through other proxies if any."""
    guard = Guard(private=config.private, own=policy.own)
    refused = policy.accounts.refuse
    direct = stack(Resolve(Resolver()), HappyEyeballs(), TcpConnector())
    if not config.via:
        made: Connector = stack(
            WithinAllowance(policy.accounts),
            ByRules(policy.rules, early=True, refused=refused),
            Resolve(Resolver()),
            ByRules(policy.rules, refused=refused),
            guard,
            HappyEyeballs(),
            TcpConnector(),
        )
        return made
    way: Connector = direct
    for url in config.via:
        way = ViaProxy(url)(way)
    last = config.via[-1].partition(":")[0]
    if last in _LOOKED_UP_HERE:
        return stack(
            WithinAllowance(policy.accounts),
            ByRules(policy.rules, early=True, refused=refused),
            Resolve(Resolver()),
            ByRules(policy.rules, refused=refused),
            guard,
            way,
        )
    return stack(
        WithinAllowance(policy.accounts), ByRules(policy.rules, refused=refused), guard, way
    )


class Stacks:
    """One service for each form, made of one configuration."""

    def __init__(self, config: ProxyConfig, policy: Policy, carrier: Courier) -> None:
        self._config = config
        self._policy = policy
        self._carrier = carrier
        self._connect = connector(config, policy)
        relay = Relay(idle=config.idle_timeout or None, linger=config.idle_timeout or None)
        self._then: Service[Bridge, RelayReport] = Accounted(policy.accounts, relay, policy.ended)

    def socks5(self, name: str) -> Service[Stream, Any]:
        config, policy = self._config, self._policy
        udp = None
        if config.udp and not config.via:
            located = Guard(private=config.private, own=policy.own)(FirstCandidate())
            refused = policy.accounts.refuse
            decided = ByRules(policy.rules, refused=refused)(located)
            locate = ByRules(policy.rules, early=True, refused=refused)(
                Resolve(Resolver())(decided)
            )
            udp = UdpAssociate(self._carrier, self._carrier.endpoint(name), locate)
        return Socks5Server(
            connect=self._connect,
            auth=policy.auth,
            guest=config.guest,
            udp=udp,
            then=self._then,
            handshake_timeout=config.handshake_timeout or None,
            connect_timeout=config.connect_timeout or None,
        )

    def http(self) -> Service[Stream, Any]:
        config, policy = self._config, self._policy
        return HttpProxy(
            connect=self._connect,
            auth=policy.auth,
            guest=config.guest,
            then=self._then,
            head_timeout=config.handshake_timeout or None,
            connect_timeout=config.connect_timeout or None,
            answer_timeout=config.idle_timeout or None,
            forwarded=policy.forwarded,
            each=is_written,
            limits=policy.accounts,
        )

    def _tls(self, files: list[str]) -> EngineTls:
        return EngineTls(
            TlsServerConfig(files[0], files[1]), self._config.handshake_timeout or 10.0
        )

    def of(self, form: str, name: str) -> Service[Stream, Any]:
        """The service of one address, in TLS if there is a certificate."""
        config = self._config
        made: Service[Stream, Any]
        if form == "mixed":
            tls = None
            inside = MixedProxy(self.socks5(name), self.http())
            if config.tls:
                tls = self._tls(config.tls)(inside)
            return MixedProxy(
                self.socks5(name), self.http(), tls, timeout=config.handshake_timeout or None
            )
        made = self.socks5(name) if form == "socks5" else self.http()
        if config.tls:
            return self._tls(config.tls)(made)
        return made
