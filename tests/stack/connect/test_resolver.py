"""Looking names up: what is answered, shared, remembered, bounded."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from qanat.stack.address import Address
from qanat.stack.connect.resolve import Resolve
from qanat.stack.connect.resolver import Resolver
from qanat.stack.connect.target import ConnectTo
from qanat.stack.errors import ConnectError
from tests.stack.conftest import Run

__all__: list[str] = []

PATIENCE = 10.0


class Names:
    """A resolver of the system that a test can hold, and that counts."""

    def __init__(self, *found: str) -> None:
        self.found = found
        self.asked: list[str] = []
        self.error: OSError | None = None
        self.go = threading.Event()
        self.go.set()

    def __call__(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        assert self.go.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return self.found


def test_families_alternate_and_nothing_comes_twice(run: Run[Any]) -> None:
    names = Names("2001:db8::1", "2001:db8::2", "192.0.2.1", "2001:db8::1")
    found = run(Resolver(lookup=names).addresses("a.example"))
    assert found == ("2001:db8::1", "192.0.2.1", "2001:db8::2")


def test_an_answer_has_a_bound(run: Run[Any]) -> None:
    names = Names(*(f"192.0.2.{number}" for number in range(200)))
    assert len(run(Resolver(lookup=names).addresses("a.example"))) == 32


def test_overrides_and_names_that_nobody_is_asked_for(run: Run[Any]) -> None:
    names = Names("192.0.2.9")
    resolver = Resolver(
        {"A.example": "192.0.2.1", "*.b.example": ["192.0.2.2", "2001:db8::2"]}, lookup=names
    )

    async def exchange() -> None:
        assert await resolver.addresses("a.Example.") == ("192.0.2.1",)
        assert await resolver.addresses("x.y.b.example") == ("192.0.2.2", "2001:db8::2")
        assert await resolver.addresses("b.example") == ("192.0.2.9",)
        assert await resolver.addresses("localhost") == ("127.0.0.1", "::1")
        assert await resolver.addresses("x.localhost") == ("127.0.0.1", "::1")
        assert await resolver.addresses("192.0.2.3") == ("192.0.2.3",)
        for wrong in ("127.1", "0x7f.1", "a b", "a..b", "é.example"):
            with pytest.raises(ConnectError) as caught:
                await resolver.addresses(wrong)
            assert caught.value.kind == "dns"
        assert names.asked == ["b.example"]

    run(exchange())


def test_an_override_is_an_address() -> None:
    with pytest.raises(ValueError, match="no address"):
        Resolver({"a.example": "b.example"})


def test_one_lookup_for_all_that_ask_at_once(run: Run[Any]) -> None:
    names = Names("192.0.2.1")
    names.go.clear()

    async def exchange() -> None:
        resolver = Resolver(lookup=names)
        loop = asyncio.get_running_loop()
        asked = [loop.create_task(resolver.addresses("a.example")) for _ in range(5)]
        await asyncio.sleep(0)
        # Who gives up does not take the answer from the others.
        asked[0].cancel()
        await asyncio.wait(asked[:1])
        names.go.set()
        assert [await one for one in asked[1:]] == [("192.0.2.1",)] * 4
        assert await resolver.addresses("a.example") == ("192.0.2.1",)
        assert names.asked == ["a.example"]

    run(exchange())


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), False),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), True),
    ],
)
def test_a_no_is_remembered_unless_it_was_an_accident(
    run: Run[Any], error: OSError, again: bool
) -> None:
    names = Names()
    names.error = error

    async def exchange() -> None:
        resolver = Resolver(lookup=names)
        for _ in range(2):
            with pytest.raises(ConnectError) as caught:
                await resolver.addresses("a.example")
            assert caught.value.kind == "dns"
        assert len(names.asked) == (2 if again else 1)

    run(exchange())


def test_no_answer(run: Run[Any]) -> None:
    names = Names()
    names.go.clear()

    async def exchange() -> None:
        with pytest.raises(ConnectError, match=r"no answer from the resolver in 0\.05 s"):
            await Resolver(lookup=names, timeout=0.05).addresses("a.example")
        names.go.set()

    run(exchange())


def test_names_without_addresses(run: Run[Any]) -> None:
    with pytest.raises(ConnectError, match="has no address"):
        run(Resolver(lookup=Names()).addresses("a.example"))


def test_what_is_remembered_has_a_bound_and_an_end(run: Run[Any]) -> None:
    names = Names("192.0.2.1")

    async def exchange() -> None:
        resolver = Resolver(lookup=names, names=3)
        for number in range(10):
            await resolver.addresses(f"n{number}.example")
        assert len(resolver._known) == 3
        brief = Resolver(lookup=names, ttl=0.0)
        await brief.addresses("a.example")
        await brief.addresses("a.example")
        assert names.asked[-2:] == ["a.example"] * 2

    run(exchange())


def test_lookups_that_wait_have_a_bound(run: Run[Any]) -> None:
    names = Names("192.0.2.1")
    names.go.clear()

    async def exchange() -> None:
        resolver = Resolver(lookup=names, threads=1, waiting=1)
        loop = asyncio.get_running_loop()
        asked = [loop.create_task(resolver.addresses(f"n{number}.example")) for number in range(20)]
        refused = 0
        async with asyncio.timeout(PATIENCE):
            while refused < 17:
                await asyncio.sleep(0.01)
                refused = sum(one.done() for one in asked)
        names.go.set()
        kinds = [
            error.kind if isinstance(error, ConnectError) else "found"
            for error in await asyncio.gather(*asked, return_exceptions=True)
        ]
        assert set(kinds) == {"limit", "found"}

    run(exchange())


def test_it_ends_with_lookups_under_way(run: Run[Any]) -> None:
    names = Names("192.0.2.1")
    names.go.clear()

    async def exchange() -> None:
        resolver = Resolver(lookup=names)
        asked = asyncio.get_running_loop().create_task(resolver.addresses("a.example"))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait({asked})
        await resolver.aclose()
        names.go.set()

    run(exchange())


def test_the_layer(run: Run[Any]) -> None:
    names = Names("2001:db8::1", "192.0.2.1")
    seen: list[tuple[Address, ...] | None] = []

    async def connector(asked: ConnectTo) -> None:
        seen.append(asked.candidates)

    async def exchange() -> None:
        service = Resolve(Resolver(lookup=names))(connector)
        given = (Address("192.0.2.7", 1),)
        await service(ConnectTo(Address("a.example", 80)))
        await service(ConnectTo(Address("a.example", 81)))
        await service(ConnectTo(Address("192.0.2.5", 82)))
        await service(ConnectTo(Address("a.example", 80), candidates=given))

    run(exchange())
    assert seen == [
        (Address("2001:db8::1", 80), Address("192.0.2.1", 80)),
        (Address("2001:db8::1", 81), Address("192.0.2.1", 81)),
        (Address("192.0.2.5", 82),),
        (Address("192.0.2.7", 1),),
    ]
