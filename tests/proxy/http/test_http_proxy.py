"""The HTTP proxy in memory: every kind of message, in pieces of every size, and what may never
reach a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from qanat.proxy import HttpProxy, UserPass
from qanat.proxy.http.hop_by_hop import OUR_NAME
from qanat.stack import Address, ConnectError, ConnectTo, Denied, MemoryNetwork, StackError, Stream
from qanat.stack.errors import RemoteProtocolError
from tests.proxy.http.sites import Site, message, read_all

__all__: list[str] = []

PROXY, SITE = Address("proxy.test", 1), Address("site.test", 80)
CHUNKS = [1, 7, None]

Server = Callable[[Stream], Awaitable[None]]


async def talk(
    site: Server, said: bytes, *, chunk: int | None = None, errors: int = 0, **settings: Any
) -> bytes:
    """What the proxy answers to all of this, until it ends the connection."""
    async with MemoryNetwork(chunk=chunk) as network:
        network.listen(SITE, site)
        network.listen(PROXY, HttpProxy(connect=network.connector, **settings))
        client = network.dial(PROXY)
        await client.write(said)
        await client.write_eof()
        answer = await read_all(client)
        await client.aclose()
        assert all(isinstance(error, StackError) for error in network.errors), network.errors
        assert len(network.errors) == errors
    return answer


def head_of(answer: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    fields = {}
    for line in lines:
        name, _, value = line.partition(b": ")
        fields[name.lower()] = value
    return int(status.split()[1]), fields, body


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_request_is_rewritten_for_its_server(run: Any, chunk: int | None) -> None:
    site = Site(OK)
    said = (
        b"GET http://site.test/a?b HTTP/1.1\r\nHost: other.test\r\nX-Odd-Case: Kept\r\n"
        b"Connection: close, X-Private\r\nX-Private: no\r\nProxy-Authorization: Basic x\r\n"
        b"Proxy-Connection: keep-alive\r\nKeep-Alive: 5\r\nTE: trailers\r\n\r\n"
    )
    status, fields, body = head_of(run(talk(site, said, chunk=chunk)))
    assert (status, body, fields[b"connection"]) == (200, b"hello", b"close")
    assert fields[b"via"] == b"1.1 " + OUR_NAME
    assert site.requests == [
        b"GET /a?b HTTP/1.1\r\nHost: site.test\r\nX-Odd-Case: Kept\r\nTE: trailers\r\n"
        b"Connection: TE\r\nVia: 1.1 " + OUR_NAME + b"\r\n\r\n"
    ]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_both_connections_are_kept_and_requests_may_be_pipelined(
    run: Any, chunk: int | None
) -> None:
    site = Site(OK, b"HTTP/1.1 204 No Content\r\n\r\n", OK)
    one = b"GET http://site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n"
    answer = run(talk(site, one * 3, chunk=chunk))
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.count(b"HTTP/1.1 204 No Content") == 1
    assert (len(site.requests), site.connections) == (3, 1)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("body", ["length", "chunked"])
def test_bodies_both_ways(run: Any, chunk: int | None, body: str) -> None:
    framed = {
        "length": b"Content-Length: 11\r\n\r\nhello world",
        "chunked": b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
    }[body]
    site = Site(b"HTTP/1.1 200 OK\r\n" + framed, OK)
    post = b"POST http://site.test/ HTTP/1.1\r\nHost: site.test\r\n" + framed
    get = b"GET http://site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n"
    answer = run(talk(site, post + get, chunk=chunk))
    sent = framed.partition(b"\r\n\r\n")[2]
    assert site.requests[0].endswith(b"\r\n\r\n" + sent)
    assert sent in answer
    assert answer.endswith(b"hello")
    assert len(site.requests) == 2


@pytest.mark.parametrize("chunk", CHUNKS)
def test_connect_keeps_what_was_sent_too_early(run: Any, chunk: int | None) -> None:
    async def echo(stream: Stream, /) -> None:
        await stream.write(await read_all(stream))

    said = b"CONNECT site.test:80 HTTP/1.1\r\nHost: site.test:80\r\n\r\nearly bytes"
    for lazy in (False, True):
        answer = run(talk(echo, said, chunk=chunk, lazy=lazy))
        assert answer == b"HTTP/1.1 200 Connection established\r\n\r\nearly bytes"


def test_an_upgrade_becomes_a_tunnel(run: Any) -> None:
    async def site(stream: Stream, /) -> None:
        request = await message(stream)
        assert b"Connection: Upgrade" in request
        assert b"Upgrade: odd/1" in request
        await stream.write(
            b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: odd/1\r\n\r\n"
        )
        await stream.write(await read_all(stream))

    said = (
        b"GET http://site.test/ HTTP/1.1\r\nHost: site.test\r\n"
        b"Connection: Upgrade\r\nUpgrade: odd/1\r\n\r\nafter the head"
    )
    status, fields, body = head_of(run(talk(site, said)))
    assert (status, fields[b"upgrade"], body) == (101, b"odd/1", b"after the head")


def test_interim_answers_go_on(run: Any) -> None:
    site = Site(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n" + OK)
    said = b"GET http://site.test/ HTTP/1.1\r\nHost: site.test\r\nExpect: 100-continue\r\n\r\n"
    answer = run(talk(site, said))
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n")
    assert b"HTTP/1.1 103 Early\r\nA: b\r\n" in answer
    assert b"HTTP/1.1 200 OK\r\n" in answer


def test_an_old_client_gets_what_it_understands(run: Any) -> None:
    site = Site(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    said = b"GET http://site.test/ HTTP/1.0\r\n\r\n"
    status, fields, body = head_of(run(talk(site, said)))
    assert (status, body) == (200, b"hello")
    assert b"transfer-encoding" not in fields
    assert fields[b"connection"] == b"close"


def test_an_answer_that_ends_with_its_connection(run: Any) -> None:
    site = Site(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", ends_after=1)
    said = b"GET http://site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n"
    status, fields, body = head_of(run(talk(site, said)))
    assert (status, fields[b"connection"], body) == (200, b"close", b"until the end")


def test_head_has_no_body_whatever_it_says(run: Any) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    site = Site(head, OK)
    said = (
        b"HEAD http://site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n"
        b"GET http://site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n"
    )
    answer = run(talk(site, said))
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.count(b"hello") == 1


AMBIGUOUS = [
    b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 5, 6",
    b"Content-Length: +5",
    b"Content-Length:\x0b5",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding:\n chunked",
    b"X: y\r\n Transfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"\x00: y",
]


@pytest.mark.parametrize("fields", AMBIGUOUS)
@pytest.mark.parametrize("chunk", [1, None])
def test_nothing_ambiguous_reaches_a_server(run: Any, fields: bytes, chunk: int | None) -> None:
    site = Site(OK)
    said = (
        b"POST http://site.test/ HTTP/1.1\r\nHost: site.test\r\n" + fields + b"\r\n\r\n"
        b"0\r\n\r\nGET http://site.test/stolen HTTP/1.1\r\nHost: site.test\r\n\r\n"
    )
    answer = run(talk(site, said, chunk=chunk, errors=1))
    status, told, _ = head_of(answer)
    assert status in (400, 501)
    assert told[b"proxy-status"].startswith(b"qanat; error=")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert (site.connections, site.requests) == (0, [])


@pytest.mark.parametrize(
    "body", [b"5\r\nhell", b"x\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloo\r\n0\r\n\r\n"]
)
def test_a_broken_body_never_looks_whole(run: Any, body: bytes) -> None:
    seen: list[bytes] = []

    async def site(stream: Stream, /) -> None:
        try:
            while part := await stream.read():
                seen.append(part)
            seen.append(b"<orderly end>")
        except StackError:
            seen.append(b"<reset>")

    said = (
        b"POST http://site.test/ HTTP/1.1\r\nHost: site.test\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" + body
    )
    run(talk(site, said, errors=1, answer_timeout=5.0, idle_timeout=5.0))
    assert not b"".join(seen).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: proxy.test\r\n\r\n", 400),
        (b"GET https://site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n", 400),
        (b"GET ftp://site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n", 501),
        (b"GET http://user@site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n", 400),
        (b"GET http://127.1/ HTTP/1.1\r\nHost: site.test\r\n\r\n", 400),
        (b"GET http://site.test:0/ HTTP/1.1\r\nHost: site.test\r\n\r\n", 400),
        (b"TRACE http://site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n", 405),
        (b"CONNECT site.test HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT http://site.test/ HTTP/1.1\r\n\r\n", 400),
        (b"GET http://site.test/ HTTP/3.0\r\n\r\n", 505),
        (b"GET http://site.test/ HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET http://site.test/ HTTP/1.1\r\nVia: 1.1 " + OUR_NAME + b"\r\n\r\n", 508),
        (b"GET http://nowhere.test/ HTTP/1.1\r\nHost: nowhere.test\r\n\r\n", 502),
        (b"CONNECT nowhere.test:443 HTTP/1.1\r\n\r\n", 502),
    ],
)
def test_what_is_refused_is_told(run: Any, said: bytes, status: int) -> None:
    site = Site(OK)
    answer = run(talk(site, said, errors=1))
    got, fields, body = head_of(answer)
    assert got == status
    assert fields[b"proxy-status"].startswith(b"qanat; error=")
    assert int(fields[b"content-length"]) == len(body)
    assert site.requests == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Denied(), 403),
        (ConnectError("no", kind="timeout"), 504),
        (ConnectError("no", kind="dns"), 502),
        (ConnectError("no", kind="limit"), 503),
        (RuntimeError("a secret of ours"), 500),
    ],
)
@pytest.mark.parametrize("method", ["GET http://site.test/", "CONNECT site.test:80"])
def test_why_a_target_was_not_reached(run: Any, error: Exception, status: int, method: str) -> None:
    async def connect(asked: ConnectTo, /) -> Stream:
        raise error

    async def scenario() -> bytes:
        async with MemoryNetwork() as network:
            network.listen(PROXY, HttpProxy(connect=connect))
            client = network.dial(PROXY)
            await client.write(method.encode() + b" HTTP/1.1\r\nHost: site.test\r\n\r\n")
            answer = await read_all(client)
            await client.aclose()
            return answer

    answer = run(scenario())
    assert head_of(answer)[0] == status
    assert b"secret" not in answer


def test_credentials(run: Any) -> None:
    users = UserPass({"john": "secret"})
    get = b"GET http://site.test/ HTTP/1.1\r\nHost: site.test\r\n"
    right = b"Proxy-Authorization: Basic am9objpzZWNyZXQ=\r\n\r\n"
    for wrong in (
        b"\r\n",
        b"Proxy-Authorization: Basic am9objp3cm9uZw==\r\n\r\n",
        b"Proxy-Authorization: Basic !\r\n\r\n",
        b"Proxy-Authorization: Bearer x\r\n\r\n",
    ):
        site = Site(OK)
        status, fields, _ = head_of(run(talk(site, get + wrong, errors=1, auth=users)))
        assert status == 407
        assert fields[b"proxy-authenticate"].startswith(b"Basic realm=")
        assert site.requests == []
    site = Site(OK, OK)
    answer = run(talk(site, (get + right) * 2, auth=users))
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert all(b"Authorization" not in request for request in site.requests)
    assert head_of(run(talk(Site(OK), get + b"\r\n", auth=users, guest=True)))[0] == 200


def test_a_slow_head_is_told_and_a_resting_client_is_not(run: Any) -> None:
    async def scenario() -> tuple[bytes, bytes]:
        async with MemoryNetwork() as network:
            network.listen(SITE, Site(OK))
            proxy = HttpProxy(connect=network.connector, head_timeout=0.1, idle_timeout=0.2)
            network.listen(PROXY, proxy)
            slow = network.dial(PROXY)
            await slow.write(b"GET http://si")
            told = await read_all(slow)
            resting = network.dial(PROXY)
            await resting.write(b"GET http://site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n")
            answer = await read_all(resting)
            for client in (slow, resting):
                await client.aclose()
            return told, answer

    told, answer = run(scenario())
    assert head_of(told)[0] == 408
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(b"hello")


@pytest.mark.parametrize(("method", "again"), [(b"GET", True), (b"POST", False)])
def test_a_server_that_closed_meanwhile_is_asked_again_for_what_can_be_repeated(
    run: Any, method: bytes, again: bool
) -> None:
    connections = 0

    async def site(stream: Stream, /) -> None:
        nonlocal connections
        connections += 1
        await message(stream)
        await stream.write(OK)
        if connections == 1:
            # It reads the second request and then gives up.
            await message(stream)
            stream.abort()

    body = b"Content-Length: 2\r\n\r\nab" if method == b"POST" else b"\r\n"
    said = (
        b"GET http://site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n"
        + method
        + b" http://site.test/ HTTP/1.1\r\nHost: site.test\r\n"
        + body
    )
    answer = run(talk(site, said, errors=0 if again else 1))
    assert answer.count(b"HTTP/1.1 200 OK") == (2 if again else 1)
    assert (b"HTTP/1.1 502" in answer) is not again
    assert connections == (2 if again else 1)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ],
)
def test_an_ambiguous_answer_is_a_bad_gateway(run: Any, answer: bytes) -> None:
    said = b"GET http://site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n"
    told = run(talk(Site(answer, ends_after=1), said, errors=1))
    assert head_of(told)[0] == 502
    assert b"hello" not in told


def test_cancelled_it_leaves_nothing(run: Any) -> None:
    async def scenario() -> None:
        asked = asyncio.Event()

        async def silent(stream: Stream, /) -> None:
            await message(stream)
            asked.set()
            await stream.read()

        async with MemoryNetwork() as network:
            network.listen(SITE, silent)
            network.listen(PROXY, HttpProxy(connect=network.connector))
            client = network.dial(PROXY)
            await client.write(
                b"POST http://site.test/ HTTP/1.1\r\nHost: site.test\r\n"
                b"Content-Length: 100\r\n\r\n" + b"x" * 100
            )
            await asked.wait()
        await client.aclose()

    run(scenario())


def test_our_errors_are_of_one_tree() -> None:
    assert issubclass(RemoteProtocolError, StackError)
