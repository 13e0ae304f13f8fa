"""Streams that the engine holds: TLS in both roles, ends, failures, and their way into a flow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qanat.plan import (
    CertificatePlan,
    TlsAcceptPlan,
    TlsConnectPlan,
    TlsListenPlan,
    TlsSendPlan,
)
from qanat.stack.courier import courier
from qanat.stack.errors import (
    LocalProtocolError,
    PhaseTimeout,
    StreamBroken,
    TlsError,
)
from qanat.stack.relaying import relay
from qanat.stack.stream.engine import EngineStream, shake_as_client, shake_as_server
from qanat.stack.stream.sockets import TcpStream
from tests.stack.pairs import tcp_pair
from tests.support.certificates import Authority
from tests.support.wait import wait_until_async

__all__: list[str] = []

BIG = bytes(range(256)) * 8192
"""2 MiB: more than the engine keeps of a leg."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    made = Authority(Path(tmp_path_factory.mktemp("authority")))
    made.issue("server", "DNS:server.test")
    yield made


def accepting(authority: Authority, **more: Any) -> TlsAcceptPlan:
    cert, key = (str(authority.folder / f"server.{kind}") for kind in ("crt", "key"))
    certificates = (CertificatePlan(cert=cert, key=key),)
    return TlsAcceptPlan(tls=TlsListenPlan(certificates=certificates, alpn=("http/1.1",)), **more)


def connecting(authority: Authority, name: str = "server.test") -> TlsConnectPlan:
    return TlsConnectPlan(tls=TlsSendPlan(sni=name, ca=str(authority.cert)))


async def adopted(stream: TcpStream) -> EngineStream:
    carrier = await courier()
    taken = stream.detach()
    with carrier.translated():
        leg = carrier.desk.adopt(taken.socket.fileno(), taken.unread)
    taken.socket.detach()
    return EngineStream(carrier, leg, stream.ext)


async def both(authority: Authority) -> tuple[EngineStream, EngineStream, dict[str, Any]]:
    """The client's and the server's end of one TLS connection."""
    one, other = tcp_pair()
    (client, _), (server, facts) = await asyncio.gather(
        shake_as_client(one, connecting(authority)), shake_as_server(other, accepting(authority))
    )
    return client, server, facts


async def read_all(stream: EngineStream | TcpStream) -> bytes:
    parts = []
    while part := await stream.read():
        parts.append(part)
    return b"".join(parts)


def test_bytes_both_ways_with_half_close(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        client, server, facts = await both(authority)
        assert facts["sni"] == "server.test"
        assert facts["version"] == "TLSv1.3"

        async def upload() -> None:
            await client.write(memoryview(BIG).cast("I"))
            await client.write_eof()
            await client.write_eof()

        sending = asyncio.ensure_future(upload())
        assert await read_all(server) == BIG
        await sending
        assert await server.read() == b""
        await server.write(b"thanks")
        await server.write_eof()
        assert await read_all(client) == b"thanks"
        await client.aclose()
        await server.aclose()
        for use in (client.read, lambda: client.write(b"x")):
            with pytest.raises(LocalProtocolError):
                await use()

    run(scenario())


def test_a_writer_waits_for_the_reader(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        client, server, _ = await both(authority)
        writing = asyncio.ensure_future(client.write(BIG * 8))
        await wait_until_async(lambda: client._write_waiter is not None)
        assert not writing.done()
        assert await server.read_exactly(len(BIG) * 8) == BIG * 8
        await writing
        client.abort()
        with pytest.raises(StreamBroken):
            await server.read()
        server.abort()
        server.abort()

    run(scenario())


def test_what_was_peeked_belongs_to_the_handshake(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = tcp_pair()
        shaking = asyncio.ensure_future(shake_as_client(one, connecting(authority)))
        assert (await other.peek(5))[0] == 0x16
        server, facts = await shake_as_server(other, accepting(authority))
        client, _ = await shaking
        assert other.closed
        await client.write(b"x")
        assert await server.read() == b"x"
        assert facts["sni"] == "server.test"
        client.abort()
        server.abort()

    run(scenario())


def test_an_engine_stream_may_be_peeked_and_shaken_later(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = tcp_pair()
        shaking = asyncio.ensure_future(shake_as_client(await adopted(one), connecting(authority)))
        raw = await adopted(other)
        assert (await raw.peek(5))[0] == 0x16
        server, _ = await shake_as_server(raw, accepting(authority))
        assert raw.closed
        client, _ = await shaking
        await server.write(b"x")
        assert await client.read() == b"x"
        client.abort()
        server.abort()

    run(scenario())


def test_a_wrong_name_fails_on_both_sides(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = tcp_pair()
        results = await asyncio.gather(
            shake_as_client(one, connecting(authority, "else.test")),
            shake_as_server(other, accepting(authority)),
            return_exceptions=True,
        )
        assert isinstance(results[0], TlsError), results
        assert isinstance(results[1], TlsError | StreamBroken), results

    run(scenario())


def test_no_tls_at_all_fails(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = tcp_pair()
        await one.write(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(TlsError):
            await shake_as_server(other, accepting(authority))
        one.abort()

    run(scenario())


def test_a_silent_client_is_given_up(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = tcp_pair()
        with pytest.raises(PhaseTimeout) as caught:
            await shake_as_server(other, accepting(authority, handshake_timeout=0.1))
        assert caught.value.phase == "tls-handshake"
        one.abort()

    run(scenario())


def test_a_client_that_leaves_breaks_the_handshake(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = tcp_pair()
        shaking = asyncio.ensure_future(shake_as_server(other, accepting(authority)))
        await wait_until_async(lambda: other.closed)
        one.abort()
        with pytest.raises(StreamBroken):
            await shaking

    run(scenario())


def test_a_cancelled_handshake_resets_the_peer(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = tcp_pair()
        shaking = asyncio.ensure_future(shake_as_server(other, accepting(authority)))
        await wait_until_async(lambda: other.closed)
        shaking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await shaking
        with pytest.raises(StreamBroken):
            await one.read()
        await one.aclose()

    run(scenario())


def test_a_plan_without_its_files_fails_and_resets_the_peer(run: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        one, other = tcp_pair()
        missing = CertificatePlan(cert=str(tmp_path / "no.crt"), key=str(tmp_path / "no.key"))
        with pytest.raises(TlsError, match=r"no\.(crt|key)"):
            await shake_as_server(other, TlsAcceptPlan(tls=TlsListenPlan(certificates=(missing,))))
        with pytest.raises(StreamBroken):
            await one.read()
        await one.aclose()

    run(scenario())


def test_a_target_that_spoke_first_is_refused(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = tcp_pair()
        one.unread(b"220 mail.test\r\n")
        with pytest.raises(LocalProtocolError):
            await shake_as_client(one, connecting(authority))
        # It is as it was.
        assert await one.read() == b"220 mail.test\r\n"
        one.abort()
        other.abort()

    run(scenario())


@pytest.mark.parametrize("lower", [True, False])
def test_terminated_tls_is_relayed_in_both_ways(
    run: Any, authority: Authority, lower: bool
) -> None:
    async def scenario() -> None:
        client, server, _ = await both(authority)
        far, target = tcp_pair()
        await client.write(b"early, ")
        seen = await server.peek()
        assert seen == b"early, "
        far.unread(b"hello")
        moving = asyncio.ensure_future(relay(server, far, lower=lower))
        await client.write(b"and late")
        await client.write_eof()
        assert await read_all(target) == b"early, and late"
        await target.write(b", world")
        await target.aclose()
        assert await read_all(client) == b"hello, world"
        await client.aclose()
        report = await moving
        assert (report.reason, report.lowered) == ("client_closed", lower)
        assert (report.bytes_up, report.bytes_down) == (15, 12)
        assert server.closed

    run(scenario())


@pytest.mark.parametrize("lower", [True, False])
def test_a_reset_of_the_target_cuts_a_tls_client(
    run: Any, authority: Authority, lower: bool
) -> None:
    async def scenario() -> None:
        client, server, _ = await both(authority)
        far, target = tcp_pair()
        moving = asyncio.ensure_future(relay(server, far, lower=lower))
        await client.write(b"x")
        assert await target.read() == b"x"
        target.abort()
        with pytest.raises(StreamBroken):
            await client.read()
        report = await moving
        assert (report.reason, report.lowered) == ("target_reset", lower)
        client.abort()

    run(scenario())


def test_two_engine_streams_become_one_flow(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        client, near, _ = await both(authority)
        far, target, _ = await both(authority)
        moving = asyncio.ensure_future(relay(near, far))
        await client.write(BIG[:100_000])
        await client.write_eof()
        assert await read_all(target) == BIG[:100_000]
        await target.write_eof()
        assert await read_all(client) == b""
        report = await moving
        assert report.lowered
        assert (report.reason, report.bytes_up) == ("client_closed", 100_000)
        client.abort()
        target.abort()

    run(scenario())


def test_an_engine_stream_that_has_failed_is_reported_and_not_raised(
    run: Any, authority: Authority
) -> None:
    async def scenario() -> None:
        client, near, _ = await both(authority)
        far, target = tcp_pair()
        client.abort()
        with pytest.raises(StreamBroken):
            await near.read()
        report = await relay(near, far)
        assert report.reason == "client_reset"
        with pytest.raises(StreamBroken):
            await target.read()
        await target.aclose()

    run(scenario())


def test_the_end_of_the_courier_is_told(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        client, server, _ = await both(authority)
        reading = asyncio.ensure_future(server.read())
        await wait_until_async(lambda: server._read_waiter is not None)
        (await courier()).close()
        with pytest.raises(StreamBroken):
            await reading
        with pytest.raises(StreamBroken):
            await server.write(b"x")
        for stream in (client, server):
            await stream.aclose()
            stream.abort()

    run(scenario())


def test_a_foreign_client_understands_us(run: Any, authority: Authority) -> None:
    async def scenario() -> None:
        one, other = tcp_pair()
        serving = asyncio.ensure_future(shake_as_server(other, accepting(authority)))
        context = authority.client()
        taken = one.detach()
        reader, writer = await asyncio.open_connection(
            sock=taken.socket, ssl=context, server_hostname="server.test"
        )
        server, _ = await serving
        await server.write(b"hello")
        await server.aclose()
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()

    run(scenario())
