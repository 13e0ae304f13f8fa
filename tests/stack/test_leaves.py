"""Services at the end of a stack."""

from __future__ import annotations

from typing import Any

import pytest

from qanat.stack.address import Address
from qanat.stack.errors import ConnectError, StreamBroken
from qanat.stack.facts import Target
from qanat.stack.leaves import FROM_EXT, Forward, Reject, discard, echo
from qanat.stack.stream.base import Stream
from qanat.stack.stream.memory import MemoryNetwork, memory_pipe

__all__: list[str] = []

TARGET = Address("target.test", 7)
FRONT = Address("front.test", 1)


async def _ask(stream: Stream, said: bytes) -> bytes:
    if said:
        await stream.write(said)
    await stream.write_eof()
    heard = b""
    while part := await stream.read():
        heard += part
    await stream.aclose()
    return heard


@pytest.mark.parametrize("chunk", [1, 7, 65536])
@pytest.mark.parametrize(
    ("service", "said", "heard"),
    [
        (echo, b"hello you", b"hello you"),
        (discard, b"hello you", b""),
        (Reject(b"go away"), b"", b"go away"),
        (Reject(), b"", b""),
    ],
    ids=["echo", "discard", "banner", "silent"],
)
def test_what_they_say(run: Any, service: Any, said: bytes, heard: bytes, chunk: int) -> None:
    async def work() -> bytes:
        async with MemoryNetwork(chunk=chunk) as network:
            network.listen(TARGET, service)
            return await _ask(network.dial(TARGET), said)

    assert run(work()) == heard


def test_a_reset(run: Any) -> None:
    async def work() -> None:
        ours, theirs = memory_pipe()
        await Reject(reset=True)(theirs)
        with pytest.raises(StreamBroken):
            await ours.read()
        ours.abort()

    run(work())


@pytest.mark.parametrize("from_ext", [False, True])
def test_forward(run: Any, from_ext: bool) -> None:
    async def work() -> bytes:
        async with MemoryNetwork() as network:
            network.listen(TARGET, echo)
            forward = Forward(FROM_EXT if from_ext else TARGET, network.connector)

            async def front(stream: Stream, /) -> None:
                if from_ext:
                    stream.ext.insert(Target(TARGET))
                report = await forward(stream)
                assert (report.bytes_up, report.bytes_down) == (5, 5)
                assert stream.ext.require(Target).address == TARGET

            network.listen(FRONT, front)
            heard = await _ask(network.dial(FRONT), b"hello")
            assert not network.errors
            return heard

    assert run(work()) == b"hello"


def test_without_a_target_the_mistake_is_named(run: Any) -> None:
    async def work() -> None:
        ours, theirs = memory_pipe()
        with pytest.raises(LookupError, match="no Target"):
            await Forward(FROM_EXT, MemoryNetwork().connector)(theirs)
        ours.abort()
        theirs.abort()

    run(work())


def test_a_target_that_is_not_reached_resets_the_client(run: Any) -> None:
    async def work() -> None:
        ours, theirs = memory_pipe()
        with pytest.raises(ConnectError, match="refused"):
            await Forward(TARGET, MemoryNetwork().connector)(theirs)
        with pytest.raises(StreamBroken):
            await ours.read()
        ours.abort()

    run(work())
