"""One port for all: the first byte decides, and nothing of it is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qanat.proxy.mixed import MixedProxy
from qanat.stack.errors import PhaseTimeout, RemoteProtocolError
from qanat.stack.service import Service
from qanat.stack.stream.base import Stream
from qanat.stack.stream.memory import memory_pipe

__all__: list[str] = []


def _named(name: str) -> Service[Stream, tuple[str, bytes]]:
    async def serve(stream: Stream, /) -> tuple[str, bytes]:
        heard = b""
        while part := await stream.read():
            heard += part
        return name, heard

    return serve


def _mixed(**more: Any) -> MixedProxy:
    return MixedProxy(_named("socks"), _named("http"), **more)


async def _say(service: MixedProxy, said: bytes, chunk: int) -> Any:
    ours, theirs = memory_pipe(chunk=chunk)
    try:
        if said:
            await ours.write(said)
        await ours.write_eof()
        return await service(theirs)
    finally:
        ours.abort()
        theirs.abort()


@pytest.mark.parametrize("chunk", [1, 7, 65536])
@pytest.mark.parametrize(
    ("said", "who"),
    [
        (b"\x05\x01\x00 and more", "socks"),
        (b"\x04\x01\x00\x50", "socks"),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", "http"),
        (b"get / HTTP/1.1\r\n\r\n", "http"),
        (b"\x16\x03\x01\x00\x05hello", "tls"),
    ],
)
def test_the_first_byte_decides(run: Any, said: bytes, who: str, chunk: int) -> None:
    assert run(_say(_mixed(tls=_named("tls")), said, chunk)) == (who, said)


@pytest.mark.parametrize("first", [0x00, 0x03, 0x06, 0x16, 0x20, 0x30, 0x7F, 0x80, 0xFF])
def test_everything_else_is_refused(run: Any, first: int) -> None:
    """TLS included, where there is none."""
    with pytest.raises(RemoteProtocolError, match="none of SOCKS, HTTP and TLS"):
        run(_say(_mixed(), bytes([first]) + b"\x05CONNECT", 1))


def test_who_says_nothing_is_no_error(run: Any) -> None:
    assert run(_say(_mixed(), b"", 1)) is None


def test_who_stalls_is_ended(run: Any) -> None:
    async def work() -> None:
        ours, theirs = memory_pipe()
        try:
            with pytest.raises(PhaseTimeout, match="handshake"):
                await _mixed(timeout=0.01)(theirs)
        finally:
            ours.abort()
            theirs.abort()

    run(work())


def test_the_time_is_for_the_first_byte_alone(run: Any) -> None:
    async def work() -> Any:
        ours, theirs = memory_pipe()
        serving = asyncio.ensure_future(_mixed(timeout=0.01)(theirs))
        await ours.write(b"G")
        done, _ = await asyncio.wait({serving}, timeout=0.05)
        assert not done
        await ours.write_eof()
        result = await serving
        ours.abort()
        theirs.abort()
        return result

    assert run(work()) == ("http", b"G")
