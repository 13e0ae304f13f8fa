"""UDP for SOCKS5 clients over real sockets: who decides, who may send, when it ends."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from qanat.plan import LimitsPlan
from qanat.proxy.socks_udp import FirstCandidate, UdpAssociate
from qanat.stack.address import Address
from qanat.stack.association import Association
from qanat.stack.connect.target import ConnectTo
from qanat.stack.errors import ConnectError, Denied, LimitReached, StackError, StreamBroken
from qanat.stack.extensions import Extensions
from qanat.stack.facts import User
from qanat.stack.stream.base import Stream
from tests.support.engine_reports import Reports, desk_of_loop
from tests.support.peers import PATIENCE
from tests.support.socks_udp_client import SocksDatagrams, udp_socket
from tests.support.wait import wait_until_async

__all__: list[str] = []

LOOPBACK = Address("127.0.0.1", 9)


class Connection(Stream):
    """The client's connection: what it says comes out of a queue, an error is raised."""

    __slots__ = ("said",)

    def __init__(self) -> None:
        super().__init__()
        self.said: asyncio.Queue[bytes | StackError] = asyncio.Queue()

    async def _receive(self, max_bytes: int) -> bytes:
        match await self.said.get():
            case bytes(data):
                return data
            case error:
                raise error

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError

    async def _send_eof(self) -> None:
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError


@dataclass
class Book:
    """Where names are, what is forbidden, and what was asked."""

    places: dict[str, str] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    asked: list[ConnectTo] = field(default_factory=list)

    async def __call__(self, asked: ConnectTo, /) -> Address:
        self.asked.append(asked)
        if error := self.errors.get(asked.target.host):
            raise error
        host = self.places.get(asked.target.host, asked.target.host)
        found = asked.with_candidates((Address(host, asked.target.port),))
        return await FirstCandidate()(found)


@asynccontextmanager
async def associated(
    reports: Reports,
    udp: UdpAssociate,
    local: Address = LOOPBACK,
    client: Address = LOOPBACK,
    asked: Address | None = None,
    user: str | None = None,
) -> AsyncIterator[tuple[Association, SocksDatagrams]]:
    """An association and its client's socket."""
    ext = Extensions()
    if user is not None:
        ext.insert(User(user))
    opening = udp.open(client=client, local=local, asked=asked, ext=ext)
    async with opening as association:
        with udp_socket(association.address.host, asked.port if asked else 0) as mine:
            relay = (association.address.host, association.address.port)
            yield association, SocksDatagrams(mine, relay)
    await wait_until_async(lambda: reports.flows() == [], what="the association ends")


async def heard(target: socket.socket) -> tuple[bytes, tuple[str, int]]:
    async with asyncio.timeout(PATIENCE):
        data, sender = await asyncio.get_running_loop().sock_recvfrom(target, 65_536)
    return data, sender


async def exchange(client: SocksDatagrams, target: socket.socket, host: str = "") -> None:
    """There and back."""
    address, port = target.getsockname()[:2]
    client.send(host or address, port, b"question")
    question, sender = await heard(target)
    assert question == b"question"
    target.sendto(b"answer", sender)
    assert await client.receive() == (address, port, b"answer")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_go_there_and_back(host: str) -> None:
    async def main() -> None:
        book = Book()
        with desk_of_loop() as reports, udp_socket(host) as target:
            udp = UdpAssociate(reports, reports.endpoint, book)
            here = Address(host, 9)
            async with associated(reports, udp, here, here, user="ann") as (association, client):
                assert association.address.host == host
                await exchange(client, target)
                await exchange(client, target)
                (asked,) = book.asked
                assert asked.target == Address(*target.getsockname()[:2])
                assert asked.ext.require(User).name == "ann"
                (flow,) = reports.flows()
                assert (flow["user"], flow["protocol"]) == ("ann", "udp")

    asyncio.run(main())


def test_a_client_of_a_listener_for_both_families_is_on_ipv4() -> None:
    async def main() -> None:
        with desk_of_loop() as reports, udp_socket() as target:
            udp = UdpAssociate(reports, reports.endpoint, Book())
            mapped = Address("::ffff:127.0.0.1", 9)
            async with associated(reports, udp, mapped, mapped) as (association, client):
                assert association.address.host == "127.0.0.1"
                await exchange(client, target)

    asyncio.run(main())


def test_a_name_is_located_and_answered_from_where_it_is() -> None:
    async def main() -> None:
        book = Book({"name.example": "127.0.0.1"})
        with desk_of_loop() as reports, udp_socket() as target:
            udp = UdpAssociate(reports, reports.endpoint, book)
            async with associated(reports, udp) as (_, client):
                await exchange(client, target, "name.example")
                await exchange(client, target, "name.example")
                assert len(book.asked) == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (Denied(), "denied"),
        (LimitReached("too many"), "denied"),
        (ConnectError("no such name", kind="dns"), "resolve_failed"),
        (ConnectError("no way", kind="net-unreachable"), "unreachable"),
        (TimeoutError(), "resolve_failed"),
    ],
)
def test_a_target_that_may_not_be_reached_is_not(error: Exception, counted: str) -> None:
    async def main() -> None:
        book = Book(errors={"name.example": error})
        with desk_of_loop() as reports, udp_socket() as target:
            udp = UdpAssociate(reports, reports.endpoint, book)
            async with associated(reports, udp) as (_, client):
                client.send("name.example", 53, b"1")
                await wait_until_async(lambda: reports.dropped(counted) == 1)
                client.send("name.example", 53, b"2")
                await wait_until_async(lambda: reports.dropped(counted) == 2)
                assert len(book.asked) == 1
                await exchange(client, target)

    asyncio.run(main())


def test_a_mistake_in_a_layer_costs_one_target(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        book = Book({"nowhere.example": "no-address"}, {"name.example": ZeroDivisionError("oh")})
        with desk_of_loop() as reports, udp_socket() as target:
            udp = UdpAssociate(reports, reports.endpoint, book)
            async with associated(reports, udp) as (_, client):
                client.send("name.example", 53, b"1")
                client.send("nowhere.example", 53, b"1")
                await wait_until_async(lambda: reports.dropped("denied") == 2)
                await exchange(client, target)

    with caplog.at_level(logging.ERROR, "qanat.proxy"):
        asyncio.run(main())
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert {str(record.exc_info[1]) for record in caplog.records if record.exc_info} == {
        "oh",
        "no-address:53 is no address to send to",
    }


def test_a_number_that_is_no_address_is_not_located() -> None:
    async def main() -> None:
        book = Book()
        with desk_of_loop() as reports:
            udp = UdpAssociate(reports, reports.endpoint, book)
            async with associated(reports, udp) as (_, client):
                client.send("127.1", 53, b"x")
                await wait_until_async(lambda: reports.dropped("denied") == 1)
                assert book.asked == []

    asyncio.run(main())


def test_a_decision_that_takes_too_long_is_none() -> None:
    async def never(_: ConnectTo, /) -> Address:
        await asyncio.Event().wait()
        raise AssertionError

    async def main() -> None:
        with desk_of_loop() as reports:
            udp = UdpAssociate(reports, reports.endpoint, never, locate_timeout=0.01)
            async with associated(reports, udp) as (_, client):
                client.send("name.example", 53, b"x")
                await wait_until_async(lambda: reports.dropped("resolve_failed") == 1)

    asyncio.run(main())


def test_decisions_under_way_end_with_the_association() -> None:
    began = asyncio.Event()
    ended: list[str] = []

    async def never(_: ConnectTo, /) -> Address:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")
        raise AssertionError

    async def main() -> None:
        with desk_of_loop() as reports:
            udp = UdpAssociate(reports, reports.endpoint, never)
            async with associated(reports, udp) as (_, client):
                client.send("name.example", 53, b"x")
                async with asyncio.timeout(PATIENCE):
                    await began.wait()
            assert ended == ["cancelled"]
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_fragments_and_strangers_are_dropped() -> None:
    async def main() -> None:
        with (
            desk_of_loop() as reports,
            udp_socket() as target,
            udp_socket("127.0.0.2") as stranger,
            udp_socket() as other,
        ):
            udp = UdpAssociate(reports, reports.endpoint, Book())
            async with associated(reports, udp) as (_, client):
                SocksDatagrams(stranger, client.relay).send("127.0.0.1", 9, b"x")
                await wait_until_async(lambda: reports.dropped("denied") == 1)
                client.send("127.0.0.1", 9, b"x", fragment=1)
                client.send("127.0.0.1", 9, b"x", fragment=0x82)
                await wait_until_async(lambda: reports.dropped("malformed") == 2)
                await exchange(client, target)
                SocksDatagrams(other, client.relay).send("127.0.0.1", 9, b"x")
                await wait_until_async(lambda: reports.dropped("denied") == 2)

    asyncio.run(main())


def test_the_port_that_the_client_announced_is_the_one() -> None:
    async def main() -> None:
        with desk_of_loop() as reports, udp_socket() as target, udp_socket() as other:
            with udp_socket() as taken:
                announced = Address("0.0.0.0", taken.getsockname()[1])
            udp = UdpAssociate(reports, reports.endpoint, Book())
            async with associated(reports, udp, asked=announced) as (_, client):
                SocksDatagrams(other, client.relay).send("127.0.0.1", 9, b"x")
                await wait_until_async(lambda: reports.dropped("denied") == 1)
                await exchange(client, target)

    asyncio.run(main())


def test_it_ends_with_the_connection() -> None:
    async def main() -> None:
        for end in (b"", StreamBroken()):
            with desk_of_loop() as reports, udp_socket() as target:
                udp = UdpAssociate(reports, reports.endpoint, Book())
                connection = Connection()
                async with associated(reports, udp) as (association, client):
                    attending = asyncio.ensure_future(udp.attend(connection, association))
                    connection.said.put_nowait(b"whatever")
                    await exchange(client, target)
                    assert not attending.done()
                    connection.said.put_nowait(end)
                    async with asyncio.timeout(PATIENCE):
                        passed = await attending
                    assert passed is not None
                    assert (passed.reason, passed.bytes_up) == ("client_closed", 8)

    asyncio.run(main())


def test_silence_ends_it_and_then_the_connection_may_go() -> None:
    async def main() -> None:
        with desk_of_loop() as reports:
            udp = UdpAssociate(reports, reports.endpoint, Book(), idle_timeout=0.1)
            async with associated(reports, udp) as (association, _), asyncio.timeout(PATIENCE):
                passed = await udp.attend(Connection(), association)
            assert passed is not None
            assert passed.reason == "expired"

    asyncio.run(main())


def test_cancelling_leaves_nothing() -> None:
    async def main() -> None:
        with desk_of_loop() as reports:
            udp = UdpAssociate(reports, reports.endpoint, Book())

            async def serve() -> None:
                async with associated(reports, udp) as (association, _):
                    await udp.attend(Connection(), association)

            serving = asyncio.ensure_future(serve())
            await wait_until_async(lambda: len(reports.flows()) == 1)
            serving.cancel()
            await asyncio.wait({serving})
            assert serving.cancelled()
            await wait_until_async(lambda: reports.flows() == [])
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_too_many_are_refused_as_they_are() -> None:
    async def main() -> None:
        with desk_of_loop(LimitsPlan(associations=1)) as reports:
            udp = UdpAssociate(reports, reports.endpoint, Book())
            async with associated(reports, udp):
                with pytest.raises(LimitReached):
                    async with associated(reports, udp):
                        pass
            async with associated(reports, udp):
                pass

    asyncio.run(main())


def test_the_first_candidate_is_the_one() -> None:
    async def main() -> None:
        first = FirstCandidate()
        asked = ConnectTo(Address("name.example", 53))
        one, other = Address("192.0.2.1", 53), Address("192.0.2.2", 53)
        assert await first(asked.with_candidates((one, other))) == one
        assert await first(ConnectTo(one)) == one
        for nothing in (asked, asked.with_candidates(()), ConnectTo(one, candidates=())):
            with pytest.raises(ConnectError) as caught:
                await first(nothing)
            assert caught.value.kind == "dns"

    asyncio.run(main())
