"""What users have open, may have at most, and have moved."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qanat.proxy import accounts
from qanat.proxy.accounts import Accounted, Accounts, Allowance, WithinAllowance
from qanat.stack import (
    Address,
    Bridge,
    ConnectError,
    ConnectTo,
    Extensions,
    Relay,
    RelayReport,
    Stream,
    User,
    memory_pipe,
)
from qanat.stack.courier import courier

__all__: list[str] = []


def asked_by(name: str | None) -> ConnectTo:
    ext = Extensions()
    if name is not None:
        ext.insert(User(name))
    return ConnectTo(Address("a.example", 1), ext)


def test_a_user_over_the_limit_is_refused_before_dialling(run: Any) -> None:
    made = Accounts(lambda name: Allowance(connections=2 if name == "alice" else 0))
    dialled: list[ConnectTo] = []

    async def dial(asked: ConnectTo, /) -> Stream:
        dialled.append(asked)
        return memory_pipe()[0]

    connect = WithinAllowance(made)(dial)

    async def scenario() -> None:
        made.of("alice").open = 2
        with pytest.raises(ConnectError) as caught:
            await connect(asked_by("alice"))
        assert caught.value.kind == "limit"
        for name in ("bob", None):
            await connect(asked_by(name))
        made.of("alice").open = 1
        await connect(asked_by("alice"))

    run(scenario())
    assert len(dialled) == 3
    assert made.of("alice").refused == 1


def test_those_that_are_being_dialled_count(run: Any) -> None:
    made = Accounts(lambda name: Allowance(connections=2))
    go = asyncio.Event()

    async def dial(asked: ConnectTo, /) -> Stream:
        await go.wait()
        return memory_pipe()[0]

    connect = WithinAllowance(made)(dial)

    async def scenario() -> None:
        dialling = [asyncio.ensure_future(connect(asked_by("alice"))) for _ in range(5)]
        done, waiting = await asyncio.wait(dialling, return_when=asyncio.FIRST_EXCEPTION)
        assert len(waiting) == 2
        for one in done:
            error = one.exception()
            assert isinstance(error, ConnectError)
            assert error.kind == "limit"
        go.set()
        await asyncio.gather(*waiting)
        # Nobody is open yet, and nobody is on the way.
        await connect(asked_by("alice"))

    run(scenario())
    assert (made.of("alice").dialled, made.of("alice").refused) == (0, 3)


def test_bytes_and_connections_are_counted_and_given_back(run: Any) -> None:
    made = Accounts(lambda name: Allowance(connections=1))
    told: list[RelayReport] = []
    service = Accounted(made, Relay(), lambda bridge, report: told.append(report))

    async def scenario() -> None:
        client, near = memory_pipe()
        target, far = memory_pipe()
        near.ext.insert(User("alice"))
        moving = asyncio.ensure_future(service(Bridge(near, far)))
        await client.write(b"question")
        assert await target.read_exactly(8) == b"question"
        assert made.of("alice").open == 1
        with pytest.raises(ConnectError):
            made.admit("alice")
        await target.write(b"answer")
        await target.write_eof()
        await client.write_eof()
        await moving
        for stream in (client, target):
            await stream.aclose()

    run(scenario())
    account = made.of("alice")
    assert (account.open, account.total, account.refused) == (0, 1, 1)
    assert (account.bytes_up, account.bytes_down) == (8, 6)
    assert [report.reason for report in told] == ["target_closed"]


def test_a_connection_that_is_cut_is_told_and_given_back(run: Any) -> None:
    made = Accounts(lambda name: Allowance())
    told: list[RelayReport] = []
    service = Accounted(made, Relay(), lambda bridge, report: told.append(report))

    async def scenario() -> None:
        client, near = memory_pipe()
        target, far = memory_pipe()
        near.ext.insert(User("alice"))
        moving = asyncio.ensure_future(service(Bridge(near, far)))
        await client.write(b"x")
        assert await target.read() == b"x"
        moving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await moving
        for stream in (client, target):
            await stream.aclose()

    run(scenario())
    assert made.of("alice").open == 0
    assert [report.reason for report in told] == ["drained"]


def test_rates_are_told_to_the_engine_and_change_while_it_runs(run: Any) -> None:
    async def scenario() -> None:
        made = Accounts(lambda name: Allowance(up=1000))
        carrier = await courier()
        (key,) = await made.rates("alice")
        assert carrier.spend(key, 5000, 0) > 4
        await made.replace(lambda name: Allowance())
        assert carrier.spend(key, 5000, 0) == 0
        # For who had no limit when they came, too.
        assert await made.rates("alice") == (key,)
        made.of("alice")
        await made.replace(lambda name: Allowance(down=1000))
        assert carrier.spend(key, 0, 5000) > 4

    run(scenario())


def test_users_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "MOST_USERS", 2)
    made = Accounts(lambda name: Allowance())
    made.of("a")
    made.of("b")
    made.of("a")
    with pytest.raises(ConnectError, match="too many users"):
        made.of("c")
