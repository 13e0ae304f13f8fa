"""One line for each connection, however it ends."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from qanat.stack.address import Address
from qanat.stack.errors import Denied
from qanat.stack.facts import Client, Listener, Peer, Target, Tls, User
from qanat.stack.layers.access_log import AccessLog
from qanat.stack.leaves import Forward, echo
from qanat.stack.stream.base import Stream
from qanat.stack.stream.memory import MemoryNetwork, MemoryStream, memory_pipe

__all__: list[str] = []


def _line(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    (record,) = [one for one in caplog.records if one.name == "qanat.access"]
    assert record.getMessage() == "connection ended"
    caplog.clear()
    fields: dict[str, Any] = record.__dict__["fields"]
    return fields


def _stream(*facts: object) -> MemoryStream:
    ours, theirs = memory_pipe()
    ours.abort()
    for fact in facts:
        theirs.ext.insert(fact)
    return theirs


@pytest.fixture(autouse=True)
def _at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "qanat.access")


def test_what_was_relayed(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        target = Address("target.test", 7)
        async with MemoryNetwork() as network:
            network.listen(target, echo)
            front = Address("front.test", 1)
            logged = AccessLog()(Forward(target, network.connector))
            ended = asyncio.Event()

            async def serve(stream: Stream, /) -> None:
                await logged(stream)
                ended.set()

            network.listen(front, serve)
            stream = network.dial(front)
            await stream.write(b"hello")
            await stream.write_eof()
            assert await stream.read_exactly(5) == b"hello"
            assert await stream.read() == b""
            await ended.wait()
            await stream.aclose()

    run(work())
    fields = _line(caplog)
    assert (fields["bytes_up"], fields["bytes_down"]) == (5, 5)
    assert fields["target"] == "target.test:7"
    assert fields["endpoint"] == "front.test:1"
    assert fields["client"].startswith("192.0.2.1:")
    assert fields["duration"] >= 0


def test_facts_that_are_known(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def serve(_: Stream, /) -> None: ...

    stream = _stream(
        Peer(Address("10.0.0.1", 1)),
        Client(Address("192.0.2.7", 2)),
        Listener(Address("127.0.0.1", 3), "front"),
        Target(Address("a.example", 443)),
        User("alice"),
        Tls("TLSv1.3", "x", server_name="b.example"),
    )
    run(AccessLog()(serve)(stream))
    stream.abort()
    fields = _line(caplog)
    assert fields["client"] == "192.0.2.7:2"
    assert fields["endpoint"] == "front"
    assert fields["target"] == "a.example:443"
    assert fields["user"] == "alice"
    assert fields["sni"] == "b.example"
    assert fields["reason"] == "done"


@pytest.mark.parametrize(
    ("error", "reason", "detail"),
    [
        (Denied("not you"), "denied", "not you"),
        (ValueError("secret"), "error", "ValueError"),
        (asyncio.CancelledError(), "cut", None),
    ],
    ids=["denied", "mistake", "cut"],
)
def test_how_it_ended(
    run: Any,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    reason: str,
    detail: str | None,
) -> None:
    async def fails(_: Stream, /) -> None:
        raise error

    async def work() -> None:
        stream = _stream()
        try:
            with pytest.raises(type(error)):
                await AccessLog()(fails)(stream)
        finally:
            stream.abort()

    run(work())
    fields = _line(caplog)
    assert (fields["reason"], fields["detail"]) == (reason, detail)
    assert fields["client"] is None


def test_it_costs_nothing_when_nobody_reads_it(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "qanat.access")

    async def serve(_: Stream, /) -> int:
        return 7

    assert run(AccessLog()(serve)(_stream())) == 7
    assert not caplog.records
