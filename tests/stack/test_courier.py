"""The courier: one for each loop, gone with it, and every wait for a report ends."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Any

import pytest

from qanat.stack.courier import Courier, Ended, EngineRefused, courier
from qanat.stack.relaying import RelayReport, relay
from tests.stack.pairs import ends, tcp_pair, tcp_sockets
from tests.support.wait import wait_until_async

__all__: list[str] = []


def test_there_is_one_for_each_loop(run: Any) -> None:
    async def mine() -> Courier:
        first, second = await asyncio.gather(courier(), courier())
        assert first is second
        assert not first.closed
        return first

    one, other = run(mine()), run(mine())
    assert one is not other
    assert one.closed
    assert other.closed


def test_it_ends_with_its_loop_and_cuts_what_it_carries() -> None:
    ours, theirs = tcp_sockets()

    async def leave_a_flow_behind() -> None:
        near, far = tcp_pair()
        left, right = far.detach(), near.detach()
        carrier = await courier()
        plan = f'{{"endpoint": {carrier.endpoint("test")}, "target": "x"}}'
        carrier.lower(theirs.fileno(), left.socket.fileno(), plan, b"", b"")
        theirs.detach()
        left.socket.detach()
        right.socket.close()

    asyncio.run(leave_a_flow_behind())
    ours.setblocking(True)
    ours.settimeout(10)
    try:
        assert ours.recv(1) == b""
    except ConnectionResetError:
        pass
    finally:
        ours.close()


def test_its_end_is_the_end_of_its_flows(run: Any) -> None:
    async def scenario() -> RelayReport:
        made = ends("tcp")
        moving = asyncio.ensure_future(relay(made.near, made.far))
        await made.client.write(b"x")
        assert await made.target.read() == b"x"
        carrier = await courier()
        carrier.close()
        carrier.close()
        report = await moving
        made.abort()
        # The next flow of the loop gets a new one.
        assert await courier() is not carrier
        return report

    report = run(scenario())
    assert report.lowered
    assert report.reason == "shutdown"


def test_a_watcher_hears_everything_in_order_and_the_end_last(run: Any) -> None:
    async def scenario() -> None:
        carrier = await courier()
        heard: list[str] = []
        one, other = tcp_sockets()
        leg = carrier.desk.adopt(one.detach())
        carrier.watch(leg, lambda kind, _: heard.append(kind))
        assert carrier.desk.read(leg, 10) is None
        other.send(b"x")
        await wait_until_async(lambda: heard == ["readable"])
        carrier.close()
        assert heard == ["readable", "closed"]
        other.close()

    run(scenario())


def test_who_is_forgotten_hears_nothing(run: Any) -> None:
    async def scenario() -> None:
        carrier = await courier()
        heard: list[str] = []
        one, other = tcp_sockets()
        leg = carrier.desk.adopt(one.detach())
        carrier.watch(leg, lambda kind, _: heard.append(kind))
        carrier.forget(leg)
        carrier.close()
        assert heard == []
        other.close()

    run(scenario())


def test_a_failing_watcher_does_not_stop_the_others(
    run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        carrier = await courier()
        heard: list[str] = []

        def fail(*_: object) -> None:
            raise ValueError("on purpose")

        pairs = [tcp_sockets(), tcp_sockets()]
        for (one, _), callback in zip(
            pairs, (fail, lambda kind, _: heard.append(kind)), strict=True
        ):
            leg = carrier.desk.adopt(one.detach())
            carrier.watch(leg, callback)
            assert carrier.desk.read(leg, 1) is None
        for _, other in pairs:
            other.send(b"x")
        await wait_until_async(lambda: heard == ["readable"] and "on purpose" in caplog.text)
        carrier.forget(leg)
        for _, other in pairs:
            other.close()

    with caplog.at_level(logging.ERROR, "qanat.stack"):
        run(scenario())


def test_what_the_engine_refuses_stays_with_the_caller(run: Any) -> None:
    async def scenario() -> None:
        carrier = await courier()
        one, other = tcp_sockets()
        plan = f'{{"endpoint": {carrier.endpoint("test")}, "target": "x"}}'
        reading, writing = os.pipe()
        with pytest.raises(EngineRefused) as caught:
            carrier.lower(one.fileno(), writing, plan, b"", b"")
        assert caught.value.code == "descriptor"
        os.close(reading)
        os.close(writing)
        other.send(b"x")
        one.setblocking(True)
        assert one.recv(1) == b"x"
        one.close()
        other.close()

    run(scenario())


def test_endpoints_are_made_once(run: Any) -> None:
    async def scenario() -> None:
        carrier = await courier()
        assert carrier.endpoint("a") == carrier.endpoint("a")
        assert carrier.endpoint("a") != carrier.endpoint("b")
        assert carrier.endpoint("a", "127.0.0.1:1") != carrier.endpoint("a")

    run(scenario())


def test_a_report_without_words_is_a_shutdown() -> None:
    assert Ended.from_report("") == Ended("shutdown", None, 0, 0, 0.0)


def test_after_a_fork_the_child_has_a_courier_of_its_own() -> None:
    async def carried() -> str:
        made = ends("tcp")
        moving = asyncio.ensure_future(relay(made.near, made.far))
        await made.client.write(b"x")
        assert await made.target.read() == b"x"
        await made.client.write_eof()
        await made.target.write_eof()
        report = await moving
        made.abort()
        return f"{report.reason} {report.lowered}"

    assert asyncio.run(carried()) == "client_closed True"
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        try:
            theirs.sendall(asyncio.run(carried()).encode())
        finally:
            os._exit(0)
    theirs.close()
    ours.settimeout(10)
    try:
        assert ours.recv(100) == b"client_closed True"
    finally:
        ours.close()
        os.waitpid(child, 0)
