"""An association over the engine: reports, answers, and what it says when there is none."""

from __future__ import annotations

import asyncio
import json

import pytest

from qanat.plan import AssociatePlan, LimitsPlan
from qanat.stack.address import Address
from qanat.stack.association import Association
from qanat.stack.errors import ConnectError, LimitReached
from tests.support.engine_reports import Reports, desk_of_loop
from tests.support.peers import PATIENCE
from tests.support.socks_udp_client import SocksDatagrams, udp_socket
from tests.support.wait import wait_until_async

__all__: list[str] = []


def plan(reports: Reports, bind: str = "127.0.0.1:0") -> AssociatePlan:
    return AssociatePlan(endpoint=reports.endpoint, client="127.0.0.1:9", bind=bind)


def test_a_target_is_asked_about_and_reached_and_counted() -> None:
    async def main() -> None:
        asked: list[str] = []
        with desk_of_loop() as reports, udp_socket() as mine, udp_socket() as target:
            association = Association(reports, plan(reports), asked.append)
            client = SocksDatagrams(mine, (association.address.host, association.address.port))
            host, port = target.getsockname()
            client.send("name.example", port, b"hello")
            await wait_until_async(lambda: asked == [f"name.example:{port}"])
            association.allow(asked[0], Address(host, port))
            async with asyncio.timeout(PATIENCE):
                said, sender = await asyncio.get_running_loop().sock_recvfrom(target, 100)
            assert said == b"hello"
            target.sendto(b"answer", sender)
            assert await client.receive() == (host, port, b"answer")
            association.release()
            association.release()
            async with asyncio.timeout(PATIENCE):
                ended = await association.ended
            assert (ended.reason, ended.detail) == ("client_closed", None)
            assert (ended.bytes_up, ended.bytes_down) == (5, 6)
            assert (ended.packets_up, ended.packets_down) == (1, 1)
            assert ended.seconds > 0
            # Too late, and no harm.
            association.allow(asked[0], Address(host, port))
            association.deny(asked[0])

    asyncio.run(main())


def test_what_cannot_be_opened_says_whose_fault_it_is() -> None:
    async def main() -> None:
        with desk_of_loop(LimitsPlan(associations=1)) as reports:
            first = Association(reports, plan(reports), print)
            with pytest.raises(LimitReached):
                Association(reports, plan(reports), print)
            first.release()
            async with asyncio.timeout(PATIENCE):
                await first.ended
            with pytest.raises(ConnectError) as caught:
                # TEST-NET: no address of this machine.
                Association(reports, plan(reports, "192.0.2.1:0"), print)
            assert (caught.value.kind, caught.value.domain) == ("local", "local")

    asyncio.run(main())


@pytest.mark.parametrize("address", [Address("name.example", 53), Address("192.0.2.1", 0)])
def test_only_an_address_can_be_allowed(address: Address) -> None:
    async def main() -> None:
        with desk_of_loop() as reports:
            association = Association(reports, plan(reports), print)
            with pytest.raises(ValueError, match="no address"):
                association.allow("name.example:53", address)

    asyncio.run(main())


def test_a_closed_association_answers_no_questions() -> None:
    async def main() -> None:
        asked: list[str] = []
        with desk_of_loop() as reports:
            association = Association(reports, plan(reports), asked.append)
            association.close()
            association._reported("asks", json.dumps({"target": "name.example:1"}))
            assert asked == []

    asyncio.run(main())


def test_a_desk_that_is_gone_ends_it() -> None:
    async def main() -> None:
        with desk_of_loop() as reports:
            association = Association(reports, plan(reports), print)
            reports.desk.shutdown()
            association.release()
            association.deny("name.example:1")
            # What a courier says to everybody when it closes.
            association._reported("closed", "")
            assert association.ended.result().reason == "shutdown"

    asyncio.run(main())
