"""What the engine is told of a flow that is handed down, and what such a flow costs."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qanat.stack.address import Address
from qanat.stack.bridge import Bridge
from qanat.stack.courier import EngineRefused, courier
from qanat.stack.facts import Accepted, Client, Listener, Peer, Rates, Target, User
from qanat.stack.peek import TLS, Peek, SniRoute
from qanat.stack.relaying import Relay, RelayReport, relay
from qanat.stack.stream.base import Stream
from qanat.stack.stream.memory import memory_pipe
from tests.stack.pairs import Ends, ends, tcp_pair, tcp_sockets
from tests.support.hellos import real_hello
from tests.support.wait import wait_until_async

__all__: list[str] = []

IDLE_BOUND = 6 * 1024
"""Bytes for an idle flow, all of Python and of the engine."""


async def finish(made: Ends, moving: asyncio.Task[RelayReport]) -> RelayReport:
    await made.client.write_eof()
    await made.target.write_eof()
    report = await moving
    made.abort()
    return report


def test_a_flow_is_listed_with_what_is_known_of_it(run: Any) -> None:
    async def scenario() -> None:
        made = ends("tcp")
        ext = made.near.ext
        ext.insert(Listener(Address("127.0.0.1", 1080), "socks"))
        ext.insert(Client(Address("192.0.2.7", 4711)))
        ext.insert(Target(Address("example.com", 443)))
        ext.insert(User("alice"))
        ext.insert(Accepted(asyncio.get_running_loop().time() - 100))
        moving = asyncio.ensure_future(Relay()(Bridge(made.near, made.far)))
        await made.client.write(b"x")
        assert await made.target.read() == b"x"
        assert made.near.closed  # type: ignore[attr-defined]
        assert made.far.closed  # type: ignore[attr-defined]
        carrier = await courier()
        (flow,) = carrier.group.flows()
        assert flow["client"] == "192.0.2.7:4711"
        assert flow["target"] == "example.com:443"
        assert flow["user"] == "alice"
        assert flow["endpoint"] == "socks"
        assert flow["duration"] >= 100
        report = await finish(made, moving)
        assert report.lowered
        assert carrier.group.flows() == []

    run(scenario())


def test_a_flow_that_nobody_described_is_taken_too(run: Any) -> None:
    async def scenario() -> None:
        made = ends("unix")
        moving = asyncio.ensure_future(relay(made.near, made.far))
        await made.client.write(b"x")
        assert await made.target.read() == b"x"
        assert (await finish(made, moving)).lowered

    run(scenario())


def test_what_a_router_looked_at_goes_down_first(run: Any) -> None:
    async def scenario() -> None:
        made = ends("tcp")
        hello = real_hello("www.example.com")

        async def forward(stream: Stream, /) -> RelayReport:
            return await relay(stream, made.far)

        service = Peek({TLS: SniRoute({"*.example.com": forward})})
        moving = asyncio.ensure_future(service(made.near))
        await made.client.write(hello + b"behind")
        assert await made.target.read_exactly(len(hello) + 6) == hello + b"behind"
        await made.target.write(b"answer")
        assert await made.client.read_exactly(6) == b"answer"
        report = await finish(made, moving)
        assert report.lowered
        assert report.bytes_up == len(hello) + 6

    run(scenario())


def test_killed_flows_say_so(run: Any) -> None:
    async def scenario() -> None:
        made = ends("tcp")
        moving = asyncio.ensure_future(relay(made.near, made.far))
        await made.client.write(b"x")
        assert await made.target.read() == b"x"
        carrier = await courier()
        (flow,) = carrier.group.flows()
        assert carrier.group.kill(flow["id"])
        assert (await moving).reason == "killed"
        made.abort()

    run(scenario())


def test_rates_hold_for_all_flows_that_name_them(run: Any) -> None:
    async def scenario() -> None:
        carrier = await courier()
        carrier.set_rates("alice", 1000.0, None)
        made = ends("tcp")
        made.near.ext.insert(Rates(("alice",)))
        moving = asyncio.ensure_future(relay(made.near, made.far))
        loop = asyncio.get_running_loop()
        began = loop.time()
        await made.client.write(b"x" * 2500)
        assert len(await made.target.read_exactly(2500)) == 2500
        # One second's worth may come at once.
        assert loop.time() - began >= 1.0
        assert (await finish(made, moving)).bytes_up == 2500

    run(scenario())


@pytest.mark.parametrize("sides", ["memory and tcp", "tcp and memory"])
def test_what_is_no_socket_stays_in_python(run: Any, sides: str) -> None:
    async def scenario() -> None:
        sockets, memory = tcp_pair(), memory_pipe()
        first, second = (memory, sockets) if sides.startswith("memory") else (sockets, memory)
        made = Ends(first[0], first[1], second[1], second[0])
        moving = asyncio.ensure_future(relay(made.near, made.far))
        await made.client.write(b"x")
        assert await made.target.read() == b"x"
        report = await finish(made, moving)
        assert (report.lowered, report.bytes_up) == (False, 1)

    run(scenario())


def test_an_engine_that_refuses_leaves_the_flow_to_python(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        carrier = await courier()

        def refuse(*_: object) -> None:
            raise EngineRefused("full", "full")

        monkeypatch.setattr(carrier, "lower", refuse)
        made = ends("tcp")
        made.near.unread(b"early ")
        moving = asyncio.ensure_future(relay(made.near, made.far))
        await made.client.write(b"x")
        assert await made.target.read_exactly(7) == b"early x"
        report = await finish(made, moving)
        assert (report.lowered, report.reason) == (False, "client_closed")

    run(scenario())


def test_without_the_engine_python_moves_the_bytes(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setitem(sys.modules, "qanat._engine", None)
        made = ends("tcp")
        moving = asyncio.ensure_future(relay(made.near, made.far))
        await made.client.write(b"x")
        assert await made.target.read() == b"x"
        assert not (await finish(made, moving)).lowered

    run(scenario())


def test_an_idle_flow_costs_little() -> None:
    """In a process of its own: memory that other tests have left would make it look cheap."""
    words = [sys.executable, "-m", "tests.stack.test_lowering"]
    ran = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert 0 < float(ran.stdout) <= IDLE_BOUND, ran.stdout


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _idle_flows(count: int) -> float:
    """Bytes for each of so many flows at rest, as a server has them: a task, two streams with
    facts, and what the engine holds."""
    from qanat.stack.stream.sockets import TcpStream

    relay = Relay(idle=600.0, linger=300.0)

    async def serve(near: TcpStream, far: TcpStream) -> None:
        await relay(Bridge(near, far))

    async def crowd(count: int, measure: Callable[[], int]) -> tuple[int, int]:
        sockets = [tcp_sockets() for _ in range(2 * count)]
        listener = Listener(Address("127.0.0.1", 1080), "proxy")
        target = Target(Address("example.com", 443))
        tasks = []
        before = measure()
        for index in range(count):
            near, far = (TcpStream(sockets[2 * index + side][1]) for side in (0, 1))
            near.ext.insert(Peer(Address("127.0.0.1", 40_000)))
            near.ext.insert(listener)
            near.ext.insert(target)
            far.ext.insert(Peer(Address("127.0.0.1", 443)))
            tasks.append(asyncio.ensure_future(serve(near, far)))
            del near, far
        carrier = await courier()
        await wait_until_async(lambda: len(carrier.group.flows()) == count)
        for client, _ in sockets:
            client.send(b"x")
        for client, _ in sockets:
            await asyncio.get_running_loop().sock_recv(client, 1)
        after = measure()
        for client, _ in sockets:
            client.close()
        await asyncio.gather(*tasks)
        return before, after

    await crowd(20, _resident)
    before, after = await crowd(count, _resident)
    return (after - before) / count


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.stdout.write(f"{asyncio.run(_idle_flows(2000))}\n")
