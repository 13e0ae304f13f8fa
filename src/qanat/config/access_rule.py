"""One rule of a proxy: who may go where, as people write it. Pure.

``deny to=10.0.0.0/8``, ``allow user=alice,bob to=*.example.com,example.org port=443,8000-8100``.
Every word narrows the rule; within a word any of the values will do. The first rule that fits a
connection decides about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from qanat.config.address import AddressError
from qanat.config.networks import IpNetwork, parse_network

__all__ = ["AccessRule", "RuleError", "parse_rule"]

_WORDS: Final = ("user", "client", "to", "port")
_SHAPE: Final = "as: deny to=10.0.0.0/8, or: allow user=alice to=*.example.com port=443"


class RuleError(ValueError):
    """A text is no rule. ``hint`` says what would be."""

    def __init__(self, message: str, hint: str = _SHAPE) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class AccessRule:
    """What is empty does not narrow the rule."""

    verdict: Literal["allow", "deny"]
    users: tuple[str, ...] = ()
    clients: tuple[IpNetwork, ...] = ()
    networks: tuple[IpNetwork, ...] = ()
    """Targets by address."""
    domains: tuple[str, ...] = ()
    """Targets by name: ``example.com`` and all below it, ``*.example.com`` only what is below."""
    files: tuple[str, ...] = ()
    """Files with more domains and networks, one in a line."""
    ports: tuple[tuple[int, int], ...] = ()
    text: str = ""


def parse_rule(text: str) -> AccessRule:
    """:raises RuleError: what is wrong with it."""
    verdict, *words = text.split() or [""]
    if verdict not in ("allow", "deny"):
        raise RuleError(f'"{verdict}" is neither allow nor deny')
    if not words:
        raise RuleError(f"{verdict} what?", f'"{verdict} all" is about every connection')
    users: list[str] = []
    clients: list[IpNetwork] = []
    networks: list[IpNetwork] = []
    domains: list[str] = []
    files: list[str] = []
    ports: list[tuple[int, int]] = []
    if words != ["all"]:
        for word in words:
            if word == "all":
                raise RuleError('"all" stands alone', "leave it out: the other words say what fits")
            name, equals, values = word.partition("=")
            if not equals or name not in _WORDS:
                raise RuleError(f'"{word}" is none of {", ".join(f"{one}=" for one in _WORDS)}')
            for value in values.split(","):
                if not value:
                    raise RuleError(f"{name}= has an empty value")
                match name:
                    case "user":
                        users.append(value)
                    case "client":
                        clients.append(_network(value))
                    case "port":
                        ports.append(_ports(value))
                    case _:
                        _target(value, networks, domains, files)
    return AccessRule(
        "allow" if verdict == "allow" else "deny",
        tuple(users),
        tuple(clients),
        tuple(networks),
        tuple(domains),
        tuple(files),
        tuple(ports),
        text,
    )


def _target(value: str, networks: list[IpNetwork], domains: list[str], files: list[str]) -> None:
    if value.startswith("@"):
        if len(value) == 1:
            raise RuleError("@ needs the path of a file")
        files.append(value[1:])
    elif value[0] == "[" or ":" in value or value.replace(".", "").replace("/", "").isdigit():
        networks.append(_network(value))
    else:
        domains.append(domain(value))


def domain(value: str) -> str:
    """:raises RuleError: it is no domain, with or without ``*.`` before it."""
    name = value.removeprefix("*.").removesuffix(".").lower()
    try:
        name = name.encode("idna").decode() if not name.isascii() else name
    except UnicodeError:
        raise RuleError(f'"{value}" is no domain') from None
    labels = name.split(".")
    if len(name) > 253 or not all(
        0 < len(label) <= 63 and label.replace("-", "").replace("_", "").isalnum()
        for label in labels
    ):
        raise RuleError(f'"{value}" is no domain', "as example.com or *.example.com")
    return ("*." if value.startswith("*.") else "") + name


def _network(value: str) -> IpNetwork:
    try:
        return parse_network(value)
    except AddressError as error:
        what = str(error)
        colon = "" if what.startswith("is ") else ":"
        raise RuleError(f'"{value}"{colon} {what}', error.hint or _SHAPE) from None


def _ports(value: str) -> tuple[int, int]:
    low, dash, high = value.partition("-")
    numbers = [low, high] if dash else [low, low]
    if not all(one.isascii() and one.isdigit() and len(one) <= 5 for one in numbers):
        raise RuleError(f'"{value}" is no port', "as 443 or 8000-8100")
    first, last = map(int, numbers)
    if not 1 <= first <= last <= 65535:
        raise RuleError(f'"{value}" is no range of ports', "from 1 to 65535, as 8000-8100")
    return first, last
