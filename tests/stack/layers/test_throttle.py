"""Streams by the second: everything arrives, slowly, and slowness is felt at the other end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qanat.stack.layers.throttle import Throttle, ThrottledStream
from qanat.stack.leaves import discard, echo
from qanat.stack.stream.base import Stream
from qanat.stack.stream.memory import memory_pipe

__all__: list[str] = []


async def _elapsed(layer: Throttle, chunk: int | None, size: int) -> float:
    """Seconds for so many bytes to an echo and back."""
    ours, theirs = memory_pipe(chunk=chunk)
    loop = asyncio.get_running_loop()
    began = loop.time()
    serving = asyncio.ensure_future(layer(echo)(theirs))

    async def send() -> None:
        await ours.write(bytes(size))
        await ours.write_eof()

    sending = asyncio.ensure_future(send())
    assert await ours.read_exactly(size) == bytes(size)
    assert await ours.read() == b""
    await asyncio.gather(serving, sending)
    return loop.time() - began


@pytest.mark.parametrize("chunk", [7, 65536])
@pytest.mark.parametrize(
    "layer", [Throttle(up=100_000, burst=1000), Throttle(down=100_000, burst=1000)]
)
def test_bytes_take_their_time(run: Any, layer: Throttle, chunk: int) -> None:
    # Never faster; how much slower depends on who else uses the machine.
    assert run(_elapsed(layer, chunk, 21_000)) >= 0.04


def test_a_burst_is_free(run: Any) -> None:
    """At one byte a second anything else would last for hours."""
    assert run(_elapsed(Throttle(up=1, down=1, burst=65_536), None, 20_000)) < 10


def test_it_pushes_back(run: Any) -> None:
    async def work() -> None:
        ours, theirs = memory_pipe(capacity=1000)
        serving = asyncio.ensure_future(Throttle(up=1, burst=1)(discard)(theirs))
        writing = asyncio.ensure_future(ours.write(bytes(100_000)))
        done, _ = await asyncio.wait({writing}, timeout=0.05)
        assert not done
        for task in (serving, writing):
            task.cancel()
        await asyncio.wait({serving, writing})

    run(work())


def test_it_is_a_stream_like_the_one_below(run: Any) -> None:
    async def work() -> None:
        ours, theirs = memory_pipe()
        seen: list[Stream] = []

        async def keep(stream: Stream, /) -> None:
            seen.append(stream)

        await Throttle(down=1000)(keep)(theirs)
        stream = seen[0]
        assert isinstance(stream, ThrottledStream)
        assert stream.below is theirs
        assert stream.ext is theirs.ext
        assert stream.can_half_close
        await stream.aclose()
        assert await ours.read() == b""
        stream.abort()
        ours.abort()

    run(work())


def test_none_adds_nothing() -> None:
    assert Throttle()(echo) is echo
