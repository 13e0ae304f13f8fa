"""Rules of a proxy: the first that fits decides, by name and by what the name turned out to be."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path

import pytest

from qanat.errors import ConfigError
from qanat.proxy.rules import ByRules, RuleSet, RulesInForce, compile_rules
from qanat.stack.address import Address
from qanat.stack.connect.target import ConnectTo
from qanat.stack.errors import ConnectError
from qanat.stack.extensions import Extensions
from qanat.stack.facts import Client, Peer, User

__all__: list[str] = []


def verdict(
    rules: RuleSet,
    host: str,
    port: int = 443,
    *,
    user: str | None = None,
    client: str = "192.0.2.9",
    ip: str | None = None,
) -> str | None:
    resolved = None if ip is None else ip_address(ip)
    return rules.decide(user, ip_address(client), host, resolved, port)


def test_without_rules_everything_is_allowed() -> None:
    assert verdict(compile_rules([]), "example.com") == "allow"


def test_to_deny_something_leaves_the_rest() -> None:
    rules = compile_rules(["deny port=25", "deny to=*.bad.example"])
    assert verdict(rules, "example.com", 25) == "deny"
    assert verdict(rules, "a.bad.example") == "deny"
    assert verdict(rules, "bad.example") == "allow"
    assert verdict(rules, "example.com") == "allow"


def test_to_allow_something_denies_the_rest() -> None:
    rules = compile_rules(["allow user=alice", "allow to=example.com port=443"])
    assert verdict(rules, "anywhere.example", 1, user="alice") == "allow"
    assert verdict(rules, "www.example.com") == "allow"
    assert verdict(rules, "www.example.com", 80) == "deny"
    assert verdict(rules, "other.example", user="bob") == "deny"


def test_the_first_that_fits_decides() -> None:
    rules = compile_rules(["allow client=10.0.0.0/8", "deny all"])
    assert verdict(rules, "a.example", client="10.1.2.3") == "allow"
    assert verdict(rules, "a.example", client="::ffff:10.1.2.3") == "allow"
    assert verdict(rules, "a.example", client="11.1.2.3") == "deny"


def test_networks_wait_for_the_address() -> None:
    rules = compile_rules(["deny to=10.0.0.0/8,[2001:db8::]/32", "deny port=25"])
    assert verdict(rules, "a.example") is None
    assert verdict(rules, "a.example", ip="10.9.9.9") == "deny"
    assert verdict(rules, "a.example", ip="::ffff:10.9.9.9") == "deny"
    assert verdict(rules, "a.example", ip="2001:db8::5") == "deny"
    assert verdict(rules, "a.example", ip="192.0.2.1") == "allow"


def test_files_of_domains_and_networks(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# bad\nbad.example\n10.0.0.0/8  # inside\n\n*.worse.example\n")
    rules = compile_rules(["deny to=@list"], tmp_path)
    assert verdict(rules, "a.bad.example") == "deny"
    assert verdict(rules, "worse.example", ip="192.0.2.1") == "allow"
    assert verdict(rules, "x.example", ip="10.0.0.1") == "deny"
    assert compile_rules(["deny to=@list"], tmp_path) == rules
    (tmp_path / "list").write_text("other.example\n")
    assert compile_rules(["deny to=@list"], tmp_path) != rules


def test_every_mistake_is_named(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("good.example\nno domain\n10.0.0.1/8\n")
    with pytest.raises(ConfigError) as caught:
        compile_rules(["deny port=x", "deny to=@list", "deny to=@missing"], tmp_path)
    said = [str(problem) for problem in caught.value.problems]
    assert "rules[0]" in said[0]
    assert f"{tmp_path}/list:2" in said[1]
    assert f"{tmp_path}/list:3" in said[2]
    assert "rules[2]" in said[3]
    assert "can't be read" in said[3]


def test_only_what_is_allowed_is_dialled() -> None:
    asked: list[ConnectTo] = []

    async def inner(connect: ConnectTo, /) -> str:
        asked.append(connect)
        return "connected"

    force = RulesInForce(compile_rules(["deny to=10.0.0.0/8", "deny user=bob"]))
    ruled = ByRules(force)(inner)
    ext = Extensions()
    ext.insert(Peer(Address("192.0.2.9", 1)))
    ext.insert(Client(Address("192.0.2.8", 1)))
    both = (Address("10.0.0.1", 80), Address("192.0.2.1", 80))
    target = Address("a.example", 80)

    async def scenario() -> None:
        assert await ruled(ConnectTo(target, ext, both)) == "connected"
        assert asked[-1].candidates == both[1:]
        with pytest.raises(ConnectError, match="denied by the rules") as caught:
            await ruled(ConnectTo(target, ext, both[:1]))
        assert caught.value.kind == "denied"
        # Another proxy will look the name up: what a network would decide is denied.
        with pytest.raises(ConnectError):
            await ruled(ConnectTo(target, ext))
        force.now = compile_rules(["deny user=bob"])
        assert await ruled(ConnectTo(target, ext)) == "connected"
        ext.insert(User("bob"))
        with pytest.raises(ConnectError):
            await ruled(ConnectTo(target, ext, both))

    asyncio.run(scenario())


def test_what_needs_no_address_is_denied_before_a_name_is_looked_up() -> None:
    rules = compile_rules(["deny to=blocked.test", "deny port=25", "deny to=10.0.0.0/8"])
    looked_up: list[str] = []

    async def resolve(asked: ConnectTo, /) -> str:
        looked_up.append(asked.target.host)
        return "looked up"

    early = ByRules(RulesInForce(rules), early=True)(resolve)

    async def scenario() -> None:
        for target in (
            Address("www.blocked.test", 80),
            Address("a.test", 25),
            Address("10.0.0.1", 80),
        ):
            with pytest.raises(ConnectError) as denied:
                await early(ConnectTo(target))
            assert denied.value.kind == "denied"
        # Only its address will tell.
        assert await early(ConnectTo(Address("a.test", 80))) == "looked up"

    asyncio.run(scenario())
    assert looked_up == ["a.test"]
