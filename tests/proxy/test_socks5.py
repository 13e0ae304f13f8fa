"""The SOCKS proxy in memory: what clients see, byte by byte, and what is left when they go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from qanat.proxy.auth import Authenticator, UserPass
from qanat.proxy.socks5 import Socks5Server
from qanat.stack.address import Address
from qanat.stack.codec.socks5 import (
    Command,
    Credentials,
    encode_credentials,
    encode_greeting,
    encode_request,
)
from qanat.stack.connect.target import ConnectTo
from qanat.stack.errors import (
    AuthRequired,
    ConnectError,
    LimitReached,
    PhaseTimeout,
    RemoteProtocolError,
    StreamBroken,
)
from qanat.stack.facts import Target, User
from qanat.stack.leaves import echo
from qanat.stack.stream.base import Stream
from qanat.stack.stream.memory import MemoryNetwork, MemoryStream, memory_pipe
from tests.stack.conftest import Run

__all__: list[str] = []

PROXY = Address("proxy.test", 1080)
ECHO = Address("echo.test", 7)
NOBODY = Address("nobody.test", 7)
GREETING = encode_greeting([0])
CONNECT = encode_request(Command.CONNECT, ECHO)
GRANTED = b"\x05\x00\x00\x01" + bytes(6)
USERS = UserPass({"john": "secret"})

chunks = pytest.mark.parametrize("chunk", [1, 7, None])


def talk(
    run: Run[Any],
    exchange: Callable[[MemoryStream, MemoryNetwork], Awaitable[None]],
    *,
    chunk: int | None = None,
    **settings: Any,
) -> list[BaseException]:
    """One client; what the proxy's service raised."""

    async def of_loop() -> list[BaseException]:
        async with MemoryNetwork(chunk=chunk) as network:
            network.listen(ECHO, echo)
            settings.setdefault("connect", network.connector)
            network.listen(PROXY, Socks5Server(**settings))
            client = network.dial(PROXY)
            try:
                await exchange(client, network)
            finally:
                client.abort()
            return network.errors

    errors: list[BaseException] = run(of_loop())
    return errors


async def to_the_end(stream: Stream) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


@chunks
def test_connect(run: Run[Any], chunk: int | None) -> None:
    async def exchange(client: MemoryStream, network: MemoryNetwork) -> None:
        await client.write(GREETING)
        assert await client.read_exactly(2) == b"\x05\x00"
        await client.write(CONNECT)
        assert await client.read_exactly(10) == GRANTED
        await client.write(b"hello")
        assert await client.read_exactly(5) == b"hello"
        await client.write_eof()
        assert await client.read() == b""

    assert talk(run, exchange, chunk=chunk) == []


@chunks
def test_everything_at_once(run: Run[Any], chunk: int | None) -> None:
    """Clients that don't wait: the payload behind the request reaches the target, once."""

    async def exchange(client: MemoryStream, network: MemoryNetwork) -> None:
        await client.write(GREETING + CONNECT + b"early")
        await client.write_eof()
        assert await to_the_end(client) == b"\x05\x00" + GRANTED + b"early"

    assert talk(run, exchange, chunk=chunk) == []


@chunks
@pytest.mark.parametrize("methods", [b"\x02", b"\x00\x02", b"\x01\x02\x80"])
def test_name_and_password(run: Run[Any], chunk: int | None, methods: bytes) -> None:
    seen: list[tuple[Target | None, User | None]] = []

    async def exchange(client: MemoryStream, network: MemoryNetwork) -> None:
        await client.write(encode_greeting(methods))
        assert await client.read_exactly(2) == b"\x05\x02"
        await client.write(encode_credentials(Credentials(b"john", b"secret")))
        assert await client.read_exactly(2) == b"\x01\x00"
        await client.write(CONNECT)
        assert await client.read_exactly(10) == GRANTED

    async def note(asked: ConnectTo) -> Stream:
        seen.append((asked.ext.get(Target), asked.ext.get(User)))
        ours, theirs = memory_pipe()
        theirs.abort()
        return ours

    assert talk(run, exchange, chunk=chunk, auth=USERS, connect=note) == []
    assert seen == [(Target(ECHO), User("john"))]


@pytest.mark.parametrize(
    ("name", "password"), [(b"john", b"hunter2"), (b"jane", b"secret"), (b"\xff\n", b"secret")]
)
def test_a_wrong_password_is_told_and_ends_it(run: Run[Any], name: bytes, password: bytes) -> None:
    async def exchange(client: MemoryStream, network: MemoryNetwork) -> None:
        await client.write(encode_greeting([2]) + encode_credentials(Credentials(name, password)))
        await client.write(CONNECT)
        assert await to_the_end(client) == b"\x05\x02\x01\x01"

    (error,) = talk(run, exchange, auth=USERS)
    assert isinstance(error, AuthRequired)
    assert password.decode() not in str(error)
    assert str(error).isprintable()


def test_asking_later_is_a_no(run: Run[Any]) -> None:
    async def busy(name: str, password: str) -> User | None:
        raise LimitReached("too many hashes wait")

    async def exchange(client: MemoryStream, network: MemoryNetwork) -> None:
        await client.write(encode_greeting([2]) + encode_credentials(Credentials(b"a", b"b")))
        assert await to_the_end(client) == b"\x05\x02\x01\x01"

    (error,) = talk(run, exchange, auth=busy)
    assert isinstance(error, LimitReached)


@pytest.mark.parametrize(
    ("auth", "guest", "methods", "chosen"),
    [
        (None, False, b"\x00", 0x00),
        (None, False, b"\x02", 0xFF),
        (None, False, b"", 0xFF),
        (USERS, False, b"\x00", 0xFF),
        (USERS, False, b"\x01\x80", 0xFF),
        (USERS, True, b"\x00", 0x00),
        (USERS, True, b"\x00\x02", 0x02),
    ],
)
def test_which_method(
    run: Run[Any], auth: Authenticator | None, guest: bool, methods: bytes, chosen: int
) -> None:
    async def exchange(client: MemoryStream, network: MemoryNetwork) -> None:
        await client.write(bytes((5, len(methods))) + methods)
        assert await client.read_exactly(2) == bytes((5, chosen))
        if chosen == 0xFF:
            assert await client.read() == b""

    errors = talk(run, exchange, auth=auth, guest=guest)
    if chosen == 0xFF:
        (error,) = errors
        assert isinstance(error, AuthRequired if auth else RemoteProtocolError)
    else:
        # Cut in the middle of the exchange by the client.
        assert all(isinstance(error, StreamBroken) for error in errors)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (encode_request(Command.CONNECT, NOBODY), 0x05),
        (encode_request(Command.BIND, ECHO), 0x07),
        (encode_request(Command.UDP_ASSOCIATE, ECHO), 0x07),
        (b"\x05\x09\x00", 0x07),
        (b"\x05\x01\x00\x09\x00", 0x08),
        (b"\x05\x01\x00\x03\x03a b\x00\x50", 0x04),
        (b"\x04\x01\x00", 0x01),
    ],
)
def test_refusals(run: Run[Any], request_: bytes, reply: int) -> None:
    async def exchange(client: MemoryStream, network: MemoryNetwork) -> None:
        await client.write(GREETING + request_)
        assert await to_the_end(client) == b"\x05\x00\x05" + bytes((reply, 0, 1)) + bytes(6)

    (error,) = talk(run, exchange)
    assert isinstance(error, (ConnectError, RemoteProtocolError))


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"\x00"])
def test_another_protocol_gets_no_word(run: Run[Any], begin: bytes) -> None:
    async def exchange(client: MemoryStream, network: MemoryNetwork) -> None:
        await client.write(begin)
        with suppress(StreamBroken):
            assert await client.read() == b""

    (error,) = talk(run, exchange)
    assert isinstance(error, RemoteProtocolError)


def test_who_says_nothing_is_no_error(run: Run[Any]) -> None:
    async def exchange(client: MemoryStream, network: MemoryNetwork) -> None:
        await client.write_eof()
        assert await client.read() == b""

    assert talk(run, exchange) == []


@chunks
@pytest.mark.parametrize(
    "raw",
    [
        b"\x04\x01\x00\x07\x00\x00\x00\x01john\x00echo.test\x00",
        b"\x04\x01\x00\x07\x00\x00\x00\x01\x00echo.test\x00",
    ],
)
def test_version_4a(run: Run[Any], chunk: int | None, raw: bytes) -> None:
    async def exchange(client: MemoryStream, network: MemoryNetwork) -> None:
        await client.write(raw + b"early")
        assert await client.read_exactly(13) == b"\x00\x5a" + bytes(6) + b"early"

    assert talk(run, exchange, chunk=chunk) == []


def test_version_4_where_a_password_is_needed(run: Run[Any]) -> None:
    async def exchange(client: MemoryStream, network: MemoryNetwork) -> None:
        await client.write(b"\x04\x01\x00\x07\x00\x00\x00\x01\x00echo.test\x00")
        assert await to_the_end(client) == b"\x00\x5d" + bytes(6)

    (error,) = talk(run, exchange, auth=USERS)
    assert isinstance(error, AuthRequired)


def test_version_4_can_be_off(run: Run[Any]) -> None:
    async def exchange(client: MemoryStream, network: MemoryNetwork) -> None:
        await client.write(b"\x04\x01\x00\x07\x00\x00\x00\x01\x00echo.test\x00")
        with suppress(StreamBroken):
            assert await client.read() == b""

    (error,) = talk(run, exchange, socks4=False)
    assert isinstance(error, RemoteProtocolError)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x05",
        GREETING,
        GREETING + CONNECT[:3],
        encode_greeting([2]),
        encode_greeting([2]) + b"\x01\x04jo",
        b"\x04\x01\x00\x07\x00\x00\x00\x01joh",
    ],
)
def test_who_stalls_is_ended(run: Run[Any], said: bytes) -> None:
    async def exchange(client: MemoryStream, network: MemoryNetwork) -> None:
        if said:
            await client.write(said)
        with suppress(StreamBroken):
            await to_the_end(client)

    auth = USERS if said.startswith(encode_greeting([2])) else None
    (error,) = talk(run, exchange, handshake_timeout=0.05, auth=auth)
    assert isinstance(error, PhaseTimeout)
    assert error.phase == "handshake"


def test_a_target_that_does_not_answer(run: Run[Any]) -> None:
    async def never(asked: ConnectTo) -> Stream:
        await asyncio.Event().wait()
        raise AssertionError

    async def exchange(client: MemoryStream, network: MemoryNetwork) -> None:
        await client.write(GREETING + CONNECT)
        assert await to_the_end(client) == b"\x05\x00\x05\x06\x00\x01" + bytes(6)

    (error,) = talk(run, exchange, connect=never, connect_timeout=0.05)
    assert isinstance(error, PhaseTimeout)
    assert error.phase == "connect"


def test_a_mistake_below_is_told_as_a_failure(run: Run[Any]) -> None:
    async def mistaken(asked: ConnectTo) -> Stream:
        raise RuntimeError("a mistake")

    async def exchange(client: MemoryStream, network: MemoryNetwork) -> None:
        await client.write(GREETING + CONNECT)
        assert await to_the_end(client) == b"\x05\x00\x05\x01\x00\x01" + bytes(6)

    (error,) = talk(run, exchange, connect=mistaken)
    assert isinstance(error, RuntimeError)


@pytest.mark.parametrize("said", [b"", b"\x05", GREETING, GREETING + CONNECT[:5]])
def test_cancelled_in_a_phase(run: Run[Any], said: bytes) -> None:
    """The service does not hold on, and the stream is still its owner's."""

    async def cut() -> None:
        client, served = memory_pipe()
        service = Socks5Server(MemoryNetwork().connector)
        if said:
            await client.write(said)
        task = asyncio.get_running_loop().create_task(service(served))
        if len(said) >= 3:
            await client.read_exactly(2)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        await served.write(b"still open")
        assert await client.read() == b"still open"
        client.abort()
        served.abort()

    run(cut())


@pytest.mark.parametrize("phase", ["connecting", "relaying"])
def test_cancelled_with_an_upstream(run: Run[Any], phase: str) -> None:
    """The upstream is ended, whether its connection was just made or bytes flow already."""

    async def cut() -> None:
        client, served = memory_pipe(capacity=4 if phase == "connecting" else 65536)
        near, far = memory_pipe()
        dialled = asyncio.Event()

        async def connect(asked: ConnectTo) -> Stream:
            dialled.set()
            return near

        task = asyncio.get_running_loop().create_task(Socks5Server(connect)(served))
        await client.write(GREETING)
        assert await client.read_exactly(2) == b"\x05\x00"
        for at in range(0, len(CONNECT), 4):
            await client.write(CONNECT[at : at + 4])
        await dialled.wait()
        if phase == "relaying":
            # With the small pipe the reply waits for room, between connecting and relaying.
            assert await client.read_exactly(10) == GRANTED
            await client.write(b"hello")
            assert await far.read_exactly(5) == b"hello"
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        with pytest.raises(StreamBroken):
            await far.read()
        client.abort()
        served.abort()
        far.abort()

    run(cut())
