"""The rules of a proxy, compiled: who may go where.

Decided twice for a connection: by what was asked for (user, client, name, port), which may be
enough for a no, and by each address that the name turned out to have, of which only those that may
be dialled are left. Networks are compared after IPv4 inside of IPv6 has been unwrapped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, Literal, TypeVar

from qanat.config.access_rule import AccessRule, RuleError, domain, parse_rule
from qanat.config.address import AddressError
from qanat.config.networks import IpNetwork, parse_network
from qanat.errors import ConfigError, Problem
from qanat.stack.address import Address
from qanat.stack.connect.target import ConnectTo
from qanat.stack.domains import DomainSet
from qanat.stack.errors import ConnectError
from qanat.stack.facts import Client, Peer, User
from qanat.stack.networks import Ip, NetworkSet
from qanat.stack.service import Service

__all__ = ["ByRules", "RuleSet", "RulesInForce", "compile_rules"]

_LARGEST_LIST: Final = 64 * 1024 * 1024

Verdict = Literal["allow", "deny"]
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class _Compiled:
    rule: AccessRule
    users: frozenset[str]
    domains: DomainSet | None
    clients: NetworkSet
    networks: NetworkSet

    def fits(
        self, user: str | None, client: Ip | None, host: str, ip: Ip | None, port: int
    ) -> bool | None:
        """None: the address that the name has is needed to tell."""
        rule = self.rule
        if self.users and user not in self.users:
            return False
        if self.clients and (client is None or client not in self.clients):
            return False
        if rule.ports and not any(low <= port <= high for low, high in rule.ports):
            return False
        if self.domains is None and not self.networks:
            return True
        if self.domains is not None and host in self.domains:
            return True
        if not self.networks:
            return False
        return None if ip is None else ip in self.networks


@dataclass(frozen=True, slots=True)
class RuleSet:
    """In order; the first that fits decides."""

    rules: tuple[_Compiled, ...] = field(default=(), repr=False)

    @property
    def otherwise(self) -> Verdict:
        """When none fits: to allow something is to deny the rest."""
        return "deny" if any(one.rule.verdict == "allow" for one in self.rules) else "allow"

    def decide(
        self, user: str | None, client: Ip | None, host: str, ip: Ip | None, port: int
    ) -> Verdict | None:
        """None if the address is needed to tell, and ``ip`` is None."""
        for one in self.rules:
            fits = one.fits(user, client, host, ip, port)
            if fits is None:
                return None
            if fits:
                return one.rule.verdict
        return self.otherwise

    def __len__(self) -> int:
        return len(self.rules)


@dataclass(slots=True)
class RulesInForce:
    """What a reload replaces; connections that are made keep what they were told."""

    now: RuleSet = field(default_factory=RuleSet)

    def __repr__(self) -> str:
        return f"<{len(self.now)} of them>"


@dataclass(frozen=True, slots=True)
class ByRules:
    """A layer of connectors, and of whatever else asks by ConnectTo: lets through what the rules
    allow. To stand below ``Resolve``, or alone where another proxy looks names up.

    With ``early`` it stands above as well, and denies what needs no address: nobody is asked for a
    name then, and the client learns the right reason.
    """

    rules: RulesInForce
    early: bool = False
    refused: Callable[[str], object] | None = field(default=None, repr=False)
    """Told of each user who is denied something."""

    def __call__(self, inner: Service[ConnectTo, Out], /) -> Service[ConnectTo, Out]:
        return _Ruled(self.rules, self.early, self.refused, inner)


@dataclass(frozen=True, slots=True)
class _Ruled(Generic[Out]):
    rules: RulesInForce
    early: bool
    refused: Callable[[str], object] | None = field(repr=False)
    inner: Service[ConnectTo, Out]

    def __call__(self, asked: ConnectTo, /) -> Awaitable[Out]:
        rules = self.rules.now
        if not rules.rules:
            return self.inner(asked)
        user = asked.ext.get(User)
        name = None if user is None else user.name
        source = asked.ext.get(Client) or asked.ext.get(Peer)
        client = None if source is None else source.address.ip
        target = asked.target
        if asked.candidates is None:
            # A network can't be compared with a name: such a rule waits for the address, which
            # nobody here will learn. To deny is the safe side.
            verdict = rules.decide(name, client, target.host, target.ip, target.port)
            if verdict == "deny" or (verdict is None and not self.early):
                raise self._denied(target, name)
            return self.inner(asked)
        left = tuple(
            candidate
            for candidate in asked.candidates
            if rules.decide(name, client, target.host, candidate.ip, target.port) == "allow"
        )
        if not left:
            raise self._denied(target, name)
        return self.inner(
            asked if len(left) == len(asked.candidates) else asked.with_candidates(left)
        )

    def _denied(self, target: Address, user: str | None) -> ConnectError:
        if self.refused is not None and user is not None:
            self.refused(user)
        return ConnectError(
            f"{target}: denied by the rules", kind="denied", domain="local", target=str(target)
        )


def compile_rules(texts: Sequence[str], folder: Path | None = None) -> RuleSet:
    """Rules with the files they name, which are looked for beside ``folder``.

    :raises ConfigError: what is wrong, with the number of the rule or the line of the file.
    """
    problems: list[Problem] = []
    compiled = []
    for number, text in enumerate(texts):
        try:
            rule = parse_rule(text)
        except RuleError as error:
            problems.append(
                Problem(str(error), key=f"rules[{number}]", value=text, hint=error.hint)
            )
            continue
        domains, networks = list(rule.domains), list(rule.networks)
        for name in rule.files:
            path = Path(name) if folder is None else folder / name
            try:
                _read_list(path, domains, networks)
            except OSError as error:
                problems.append(
                    Problem(
                        f"{path} can't be read: {error.strerror or error}",
                        key=f"rules[{number}]",
                        value=text,
                    )
                )
            except ConfigError as error:
                problems += error.problems
        named = DomainSet(domains) if domains or rule.files else None
        compiled.append(
            _Compiled(
                rule,
                frozenset(rule.users),
                named,
                NetworkSet(rule.clients),
                NetworkSet(networks),
            )
        )
    if problems:
        raise ConfigError(problems)
    return RuleSet(tuple(compiled))


def _read_list(path: Path, domains: list[str], networks: list[IpNetwork]) -> None:
    with path.open("rb") as file:
        raw = file.read(_LARGEST_LIST + 1)
    if len(raw) > _LARGEST_LIST:
        raise ConfigError([Problem(f"is larger than {_LARGEST_LIST // 2**20} MiB", file=str(path))])
    problems = []
    for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        try:
            if ":" in entry or entry.replace(".", "").replace("/", "").isdigit():
                networks.append(parse_network(entry))
            else:
                domains.append(domain(entry))
        except (AddressError, RuleError) as error:
            problems.append(
                Problem(str(error), file=str(path), line=number, value=entry, hint=error.hint)
            )
    if problems:
        raise ConfigError(problems[:20])
