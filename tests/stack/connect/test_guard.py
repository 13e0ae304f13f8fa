"""The guard: forbidden addresses in every clothing, where clients are, our own listeners."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from qanat.stack.address import Address
from qanat.stack.connect.guard import Guard, reach
from qanat.stack.connect.target import ConnectTo
from qanat.stack.errors import ConnectError
from qanat.stack.extensions import Extensions
from qanat.stack.facts import Client, Peer
from tests.stack.conftest import Run

__all__: list[str] = []

FAR = Peer(Address("203.0.113.9", 5))


async def passed(asked: ConnectTo) -> tuple[Address, ...] | None:
    return asked.candidates


def decide(
    run: Run[Any], guard: Guard, asked: ConnectTo, *facts: object
) -> tuple[Address, ...] | str | None:
    for fact in facts:
        asked.ext.insert(fact)

    async def of_loop() -> tuple[Address, ...] | str | None:
        try:
            return await guard(passed)(asked)
        except ConnectError as error:
            return error.kind

    result: tuple[Address, ...] | str | None = run(of_loop())
    return result


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%lo",
        "ff02::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:7f00:1::1",
        "2001:db8::5efe:127.0.0.1",
        "2001:db8::200:5efe:169.254.169.254",
    ],
)
def test_this_machine_in_all_its_clothes(run: Run[Any], host: str) -> None:
    assert reach(host) == "this machine"
    guard = Guard(private=True)
    assert decide(run, guard, ConnectTo(Address(host, 80)), FAR) == "denied"


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "fd12::1",
        "fec0::1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::808:808",
        "2002:a00:1::",
    ],
)
def test_private_networks_when_asked(run: Run[Any], host: str) -> None:
    assert reach(host) == "private"
    asked = Address(host, 80)
    assert decide(run, Guard(), ConnectTo(asked), FAR) == "denied"
    assert decide(run, Guard(private=True), ConnectTo(asked), FAR) == (asked,)
    assert decide(run, Guard(allow=("0.0.0.0/0", "::/0")), ConnectTo(asked), FAR) == (asked,)


@pytest.mark.parametrize("host", ["8.8.8.8", "172.32.0.1", "2606:4700::1", "64:ff9b::8.8.8.8"])
def test_the_rest_of_the_world(run: Run[Any], host: str) -> None:
    assert reach(host) == "public"
    assert decide(run, Guard(), ConnectTo(Address(host, 80)), FAR) == (Address(host, 80),)
    denied = Guard(deny=("0.0.0.0/0", "::/0"))
    assert decide(run, denied, ConnectTo(Address(host, 80)), FAR) == "denied"


@given(some.ip_addresses())
def test_every_address_has_an_answer(ip: object) -> None:
    found = reach(str(ip))
    if ip_address(str(ip)).is_loopback:
        assert found == "this machine"
    if getattr(ip, "version", 0) == 4:
        assert reach(f"::ffff:{ip}") == found


@pytest.mark.parametrize(
    ("facts", "anywhere"),
    [
        ((Peer(Address("127.0.0.1", 5)),), True),
        ((Peer(Address("::1", 5)),), True),
        ((Peer(Address("::ffff:127.0.0.1", 5)),), True),
        ((FAR,), False),
        ((), False),
        # A PROXY header says who it really is.
        ((Peer(Address("127.0.0.1", 5)), Client(Address("203.0.113.9", 5))), False),
        ((FAR, Client(Address("127.0.0.1", 5))), True),
    ],
)
def test_clients_on_loopback(run: Run[Any], facts: tuple[object, ...], anywhere: bool) -> None:
    target = Address("127.0.0.1", 80)
    wanted: object = (target,) if anywhere else "denied"
    assert decide(run, Guard(), ConnectTo(target), *facts) == wanted
    assert decide(run, Guard(loopback_anywhere=False), ConnectTo(target), *facts) == "denied"
    assert decide(run, Guard(deny=("127.0.0.0/8",)), ConnectTo(target), *facts) == "denied"


def test_only_what_passed_is_dialled(run: Run[Any]) -> None:
    good, bad = Address("8.8.8.8", 80), Address("10.0.0.1", 80)
    asked = ConnectTo(Address("rebind.example", 80), candidates=(bad, good))
    assert decide(run, Guard(), asked, FAR) == (good,)
    asked = ConnectTo(Address("rebind.example", 80), candidates=(bad,))
    assert decide(run, Guard(), asked, FAR) == "denied"
    asked = ConnectTo(Address("none.example", 80), candidates=())
    assert decide(run, Guard(), asked, FAR) == "denied"


@pytest.mark.parametrize(
    ("name", "passes"), [("a.example", True), ("localhost", False), ("x.LocalHost.", False)]
)
def test_names_that_nobody_looked_up(run: Run[Any], name: str, passes: bool) -> None:
    wanted = None if passes else "denied"
    assert decide(run, Guard(), ConnectTo(Address(name, 80)), FAR) == wanted
    near = Extensions()
    near.insert(Peer(Address("127.0.0.1", 5)))
    assert decide(run, Guard(), ConnectTo(Address(name, 80), near)) is None


def local_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("203.0.113.1", 9))
        except OSError:
            return "127.0.0.5"
        return str(sock.getsockname()[0])


@pytest.mark.parametrize(
    ("listener", "host", "own"),
    [
        ("0.0.0.0", local_address(), True),
        ("::", local_address(), True),
        ("::", f"::ffff:{local_address()}", True),
        ("198.51.100.1", "198.51.100.1", True),
        ("198.51.100.1", "::ffff:198.51.100.1", True),
        ("::ffff:198.51.100.1", "198.51.100.1", True),
        ("198.51.100.1", "198.51.100.2", False),
        ("0.0.0.0", "198.51.100.2", False),
    ],
)
def test_our_own_listeners(run: Run[Any], listener: str, host: str, own: bool) -> None:
    everything = ("0.0.0.0/0", "::/0")
    guard = Guard(own=lambda: [Address(listener, 1080)], private=True, allow=everything)
    here, beside = Address(host, 1080), Address(host, 1081)
    assert decide(run, guard, ConnectTo(here), FAR) == ("denied" if own else (here,))
    assert decide(run, guard, ConnectTo(beside), FAR) == (beside,)


def test_a_wrong_network_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        Guard(allow=("nonsense",))
