"""What users may have, whoever moves their messages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qanat.proxy import UserPass
from qanat.proxy.accounts import Accounts, Allowance
from qanat.stack import Bridge, Extensions
from tests.proxy.http.sites import Site
from tests.proxy.http.talking import GET, OK, asking, talk

__all__: list[str] = []


@pytest.mark.parametrize("lower", [True, False])
def test_forwarded_bytes_are_limited_by_user(run: Any, lower: bool) -> None:
    """Once for all: what the engine moves and what Python does is paid from one bucket."""
    right = GET.replace(b"Host", b"Proxy-Authorization: Basic YTpi\r\nHost")
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40_000

    async def scenario() -> None:
        accounts = Accounts(lambda name: Allowance(down=100_000))
        began = asyncio.get_running_loop().time()
        done = await talk(
            Site(*[large] * 3),
            *[right] * 3,
            lower=lower,
            auth=UserPass({"a": "b"}),
            limits=accounts,
        )
        assert done.answers.count(b"x" * 40_000) == 3
        seconds = asyncio.get_running_loop().time() - began
        # 120 KB; at the end somebody may be in debt, and bursts are a twentieth of a second.
        assert 0.7 <= seconds <= 5
        assert accounts.of("a").open == 0

    run(scenario())


def test_connections_that_forward_are_counted_to_their_user(run: Any) -> None:
    right = b"Proxy-Authorization: Basic YTpi\r\nHost"

    async def scenario() -> None:
        accounts = Accounts(lambda name: Allowance(connections=1))
        settings: dict[str, Any] = {"auth": UserPass({"a": "b"}), "limits": accounts}
        get = GET.replace(b"Host", right)
        done = await talk(Site(*[OK] * 3), get, get, get, lower=True, **settings)
        assert done.answers.count(b"HTTP/1.1 200 OK") == 3
        other = Extensions()
        accounts.begin("a", other)
        done = await talk(Site(OK), get, lower=True, **settings)
        assert done.answers.startswith(b"HTTP/1.1 503 ")
        assert not done.requests
        accounts.end("a", other)
        done = await talk(Site(OK), get, lower=True, **settings)
        assert done.answers.startswith(b"HTTP/1.1 200 ")
        assert (accounts.of("a").open, accounts.of("a").refused) == (0, 1)

    run(scenario())


@pytest.mark.parametrize("lower", [True, False])
def test_bodies_are_limited_by_user(run: Any, lower: bool) -> None:
    head = (
        b"POST http://site.test/ HTTP/1.1",
        b"Proxy-Authorization: Basic YTpi",
        b"Content-Length: 40000",
    )
    post = asking(*head, body=b"x" * 40_000)

    async def scenario() -> None:
        accounts = Accounts(lambda name: Allowance(up=100_000))
        began = asyncio.get_running_loop().time()
        users = UserPass({"a": "b"})
        done = await talk(Site(*[OK] * 4), *[post] * 4, lower=lower, auth=users, limits=accounts)
        assert done.answers.count(b"HTTP/1.1 200 OK") == 4
        # 160 KB; the last of them may be in debt.
        assert 1.0 <= asyncio.get_running_loop().time() - began <= 6

    run(scenario())


def test_a_changed_protocol_is_counted_once(run: Any) -> None:
    """As a tunnel: with one connection allowed, there is room for it."""
    switched = b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: odd/1\r\n\r\n"
    ask = (
        b"GET http://site.test/ HTTP/1.1",
        b"Proxy-Authorization: Basic YTpi",
        b"Connection: upgrade",
        b"Upgrade: odd/1",
    )

    async def scenario() -> None:
        accounts = Accounts(lambda name: Allowance(connections=1))
        seen: list[int] = []

        async def then(bridge: Bridge, /) -> None:
            accounts.begin("a", bridge.ext)
            seen.append(accounts.of("a").open)
            accounts.end("a", bridge.ext)

        done = await talk(
            Site(switched, OK),
            asking(*ask),
            lower=True,
            auth=UserPass({"a": "b"}),
            limits=accounts,
            then=then,
        )
        assert done.answers.startswith(b"HTTP/1.1 101 ")
        assert (seen, accounts.of("a").open) == ([1], 0)

    run(scenario())
