"""Messages that the engine exchanges: the same bytes as when Python does, whatever comes, and both
connections back as soon as something is out of the ordinary."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Any

import pytest

from qanat.proxy import HttpProxy, UserPass
from qanat.proxy.http.hop_by_hop import OUR_NAME
from qanat.stack import ConnectTo, StackError, Stream
from qanat.stack.courier import courier
from tests.proxy.http.sites import Site, read_all
from tests.proxy.http.talking import GET, OK, asking, more_than, talk
from tests.stack.pairs import tcp_pair
from tests.support.wait import wait_until_async

__all__: list[str] = []

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n"
)
LIMITS = ("idle_timeout", "head_timeout", "answer_timeout")
LARGE = b"x" * 3_000_000
ODD_ANSWER = (
    b"HTTP/1.1 200 Fine\r\nConnection: Keep-Alive\r\nKeep-Alive: 5\r\nVia: 1.0 a\r\n"
    b"Upgrade: h2c\r\nVia: 1.1 b\r\nContent-Length: 0\r\nSet-Cookie: x\r\n\r\n"
)
POST = asking(
    b"POST http://site.test/ HTTP/1.1", b"Host: site.test", b"Content-Length: 5", body=b"hello"
)
CASES: dict[str, tuple[list[bytes], list[bytes]]] = {
    "plain": ([GET] * 4, [OK] * 4),
    "a small body": ([GET, POST, POST, GET], [OK] * 4),
    "a large body": (
        [
            GET,
            GET,
            asking(
                b"PUT http://site.test/x HTTP/1.1",
                b"Content-Length: 300000",
                body=b"y" * 300_000,
            ),
            GET,
        ],
        [OK] * 4,
    ),
    "a chunked request": (
        [
            GET,
            GET,
            asking(
                b"POST http://site.test/x HTTP/1.1",
                b"Transfer-Encoding: chunked",
                body=b"5\r\nhello\r\n0\r\n\r\n",
            ),
            GET,
        ],
        [OK] * 4,
    ),
    "no body": (
        [GET, GET, GET.replace(b"GET", b"HEAD", 1), GET, GET],
        [
            OK,
            b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 700\r\n\r\n",
            b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n',
            OK,
        ],
    ),
    "chunks": ([GET] * 4, [OK, CHUNKED, CHUNKED, OK]),
    "much": (
        [GET] * 4,
        [OK, OK, b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + LARGE, OK],
    ),
    "interim answers": (
        [GET] * 4,
        [OK, OK, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, OK],
    ),
    "to be continued": (
        [GET, GET, POST.replace(b"Host", b"Expect: 100-continue\r\nHost"), GET],
        [OK, OK, b"HTTP/1.1 100 Continue\r\n\r\n" + OK, OK],
    ),
    "fields of one hop": (
        [
            asking(
                b"GET http://site.test?q HTTP/1.1",
                b"Proxy-Connection: Keep-Alive",
                b"Proxy-Authorization: Basic whatever",
                b"Keep-Alive: 300",
                b"X-Odd-Case:   kept \t",
            )
        ]
        * 3,
        [ODD_ANSWER] * 3,
    ),
    "the client ends its connection": (
        [GET, GET, asking(b"GET http://site.test/ HTTP/1.1", b"Connection: close")],
        [OK] * 3,
    ),
    "the server ends its connection": (
        [GET] * 4,
        [OK, OK, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", OK],
    ),
    "an old client": (
        [GET, GET, b"GET http://site.test/ HTTP/1.0\r\n\r\n"],
        [OK] * 3,
    ),
    "an old server": (
        [GET] * 4,
        [OK, OK, b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", OK],
    ),
    "another server": (
        [GET, GET, GET.replace(b"site.test", b"else.test"), GET, GET, GET],
        [OK] * 6,
    ),
    "through another proxy": (
        [GET, GET, asking(b"GET http://site.test/ HTTP/1.1", b"Via: 1.0 other"), GET],
        [OK] * 4,
    ),
    "round in circles": (
        [GET, GET, asking(b"GET http://site.test/ HTTP/1.1", b"Via: 1.1 " + OUR_NAME)],
        [OK] * 2,
    ),
    "two lengths": (
        [GET, GET, asking(b"GET http://site.test/ HTTP/1.1", *[b"Content-Length: 5"] * 2)],
        [OK] * 2,
    ),
    "both lengths": (
        [
            GET,
            GET,
            asking(
                b"POST http://site.test/ HTTP/1.1",
                b"Content-Length: 5",
                b"Transfer-Encoding: chunked",
            ),
        ],
        [OK] * 2,
    ),
    "a folded field": (
        [GET, GET, asking(b"GET http://site.test/ HTTP/1.1", b"A: b", b" c")],
        [OK] * 2,
    ),
    "no request": ([GET, GET, b"nonsense\r\n\r\n"], [OK] * 2),
    "not for a proxy": ([GET, GET, b"GET / HTTP/1.1\r\n\r\n"], [OK] * 2),
    "empty lines between": ([GET, GET, b"\r\n" + GET], [OK] * 3),
    "an ambiguous answer": (
        [GET, GET, GET],
        [OK, OK, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"],
    ),
    "no answer": ([GET, GET, GET], [OK, OK, b"nonsense\r\n\r\n"]),
    "an unasked change of protocol": (
        [GET, GET, GET],
        [OK, OK, b"HTTP/1.1 101 x\r\nUpgrade: y\r\nConnection: upgrade\r\n\r\n"],
    ),
    "a large head": (
        [GET, GET, asking(b"GET http://site.test/ HTTP/1.1", b"A: " + b"b" * 30_000), GET],
        [OK] * 4,
    ),
    "an answer with a large head": (
        [GET] * 4,
        [OK, OK, OK.replace(b"\r\n\r\n", b"\r\nA: " + b"b" * 30_000 + b"\r\n\r\n"), OK],
    ),
}


# A site that ends a connection does not read what was sent on it at once.
ENDING = {"the server ends its connection", "an old server"}
WAYS = [(case, True) for case in CASES] + [(case, False) for case in CASES if case not in ENDING]


@pytest.mark.parametrize(("case", "wait"), WAYS)
def test_the_engine_does_as_python_does(run: Any, case: str, wait: bool) -> None:
    said, answers = CASES[case]

    async def both() -> None:
        seen = []
        for lower in (True, False):
            site = Site(*answers)
            done = await talk(site, *said, lower=lower, wait=wait)
            assert (done.exchanges > 0) == lower
            seen.append(
                (
                    done.answers,
                    done.requests,
                    done.connections,
                    done.failed,
                    [
                        (one.method, one.status, one.bytes_up, one.bytes_down)
                        for one in done.told
                        if one.method
                    ],
                )
            )
        assert seen[0] == seen[1]
        assert seen[0][0].count(b"HTTP/1.1 200") >= 2

    run(both())


def test_an_answer_until_the_end(run: Any) -> None:
    async def both() -> None:
        for lower in (True, False):
            site = Site(OK, OK, b"HTTP/1.1 200 OK\r\n\r\nuntil the end", ends_after=3)
            done = await talk(site, GET, GET, GET, lower=lower)
            assert done.answers.endswith(
                b"Connection: close\r\nVia: 1.1 " + OUR_NAME + b"\r\n\r\nuntil the end"
            )
            assert not done.failed

    run(both())


def test_a_protocol_is_changed_behind_exchanges(run: Any) -> None:
    switched = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: odd/1\r\n\r\n"

    async def scenario(lower: bool) -> bytes:
        site = Site(OK, OK, switched, OK)
        upgrade = GET.replace(b"Host", b"Connection: upgrade\r\nUpgrade: odd/1\r\nHost")
        # The last one goes through the tunnel, as it is.
        done = await talk(site, GET, GET, upgrade, GET, lower=lower)
        assert site.requests[-1] == GET
        return done.answers

    answers = {run(scenario(lower)) for lower in (True, False)}
    assert len(answers) == 1
    assert answers.pop().endswith(b"\r\n\r\n" + OK)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("last", [GET, POST], ids=["again", "not again"])
def test_a_server_that_ends_a_kept_connection_instead_of_answering(
    run: Any, last: bytes, lower: bool
) -> None:
    """What can be asked twice is asked again; of the rest nobody knows whether it was done."""

    async def scenario() -> None:
        site = Site(OK, OK, b"", OK, ends_after=3)
        done = await talk(site, GET, GET, last, lower=lower)
        if last == GET:
            assert done.answers.count(b"HTTP/1.1 200 OK") == 3
            assert (len(site.requests), site.connections) == (4, 2)
        else:
            assert done.answers.count(b"HTTP/1.1 200 OK") == 2
            assert b"HTTP/1.1 502 " in done.answers
            assert (len(site.requests), site.connections) == (3, 1)

    run(scenario())


@pytest.mark.parametrize("lower", [True, False])
def test_a_server_that_ends_its_connection_at_rest(run: Any, lower: bool) -> None:
    async def scenario() -> None:
        site = Site(OK, OK, OK, OK, ends_after=2)
        done = await talk(site, GET, GET, GET, GET, lower=lower)
        assert done.answers.count(b"HTTP/1.1 200 OK") == 4
        assert site.connections == 2

    run(scenario())


@pytest.mark.parametrize("lower", [True, False])
def test_what_a_server_says_beyond_its_answer_answers_nothing(run: Any, lower: bool) -> None:
    """Else it could put an answer of its choice before the next one's."""

    async def scenario() -> None:
        site = Site(OK, OK + b"HTTP/1.1 200 Mine\r\nContent-Length: 0\r\n\r\n", OK, OK)
        done = await talk(site, GET, GET, GET, GET, lower=lower)
        assert done.answers.count(b"HTTP/1.1 200 OK") == 4
        assert b"Mine" not in done.answers
        assert site.connections == 2

    run(scenario())


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("said", [b"!", b"HTTP/1.1 200 Mine\r\nContent-Length: 0\r\n\r\n"])
def test_what_a_server_says_unasked_answers_nothing(run: Any, said: bytes, lower: bool) -> None:
    async def scenario() -> None:
        sites: list[asyncio.Task[None]] = []
        streams: list[Stream] = []
        site = Site(*[OK] * 5)

        async def connect(_: ConnectTo, /) -> Stream:
            ours, theirs = tcp_pair()
            sites.append(asyncio.ensure_future(site(theirs)))
            streams.append(theirs)
            return ours

        client, near = tcp_pair()
        serving = asyncio.ensure_future(HttpProxy(connect=connect, lower=lower)(near))
        for number in range(4):
            if number == 3:
                # At rest, behind all answers.
                await streams[0].write(said)
            await client.write(GET)
            seen = b""
            while not seen.endswith(b"hello"):
                seen += await client.read()
            assert seen.startswith(b"HTTP/1.1 200 OK\r\n")
        assert site.connections == 2
        await client.write_eof()
        await serving
        for task in sites:
            task.cancel()
        for stream in (client, near, *streams):
            stream.abort()
        await asyncio.gather(*sites, return_exceptions=True)

    run(scenario())


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n",
    ],
)
def test_nobody_takes_a_part_of_an_answer_for_the_whole(run: Any, cut: bytes, lower: bool) -> None:
    async def scenario() -> None:
        site = Site(OK, OK, cut, ends_after=3)
        done = await talk(site, GET, GET, GET, lower=lower)
        assert done.failed, "the client's connection ended in order"

    run(scenario())


@pytest.mark.parametrize("lower", [True, False])
def test_credentials_are_looked_at_with_every_request(run: Any, lower: bool) -> None:
    right = GET.replace(b"Host", b"Proxy-Authorization: Basic YTpi\r\nHost")
    wrong = GET.replace(b"Host", b"Proxy-Authorization: Basic YTpj\r\nHost")

    async def scenario() -> None:
        for last in (wrong, GET):
            site = Site(OK, OK, OK, OK)
            auth = UserPass({"a": "b"})
            done = await talk(site, right, right, right, last, lower=lower, auth=auth)
            assert done.answers.count(b"HTTP/1.1 200 OK") == 3
            assert done.answers.count(b"HTTP/1.1 407 ") == 1
            assert len(site.requests) == 3

    run(scenario())


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize(
    ("last", "setting", "answer"),
    [
        (b"", "idle_timeout", b""),
        (b"GET http://site.test/ HT", "head_timeout", b"HTTP/1.1 408 "),
        (GET, "answer_timeout", b"HTTP/1.1 504 "),
    ],
)
def test_time_limits_behind_exchanges(
    run: Any, last: bytes, setting: str, answer: bytes, lower: bool
) -> None:
    async def scenario() -> None:
        site = Site(*[OK] * 4, silent_after=3)
        client, near = tcp_pair()
        ours, theirs = tcp_pair()

        async def connect(_: ConnectTo, /) -> Stream:
            return ours

        limits: dict[str, Any] = dict.fromkeys(LIMITS, 10.0) | {setting: 0.3}
        proxy = HttpProxy(connect=connect, lower=lower, **limits)
        serving = asyncio.ensure_future(proxy(near))
        answering = asyncio.ensure_future(site(theirs))
        for _ in range(3):
            await client.write(GET)
            seen = b""
            while not seen.endswith(b"hello"):
                seen += await client.read()
        await client.write(last)
        began = asyncio.get_running_loop().time()
        ended: object = (await asyncio.gather(serving, return_exceptions=True))[0]
        assert 0.2 <= asyncio.get_running_loop().time() - began < 5
        assert isinstance(ended, StackError) == bool(last)
        near.abort() if not last else await near.aclose()
        if last:
            assert (await read_all(client)).startswith(answer)
        answering.cancel()
        for stream in (client, near, ours, theirs):
            stream.abort()
        await asyncio.gather(answering, return_exceptions=True)

    run(scenario())


def test_a_cancelled_exchange_leaves_nothing(run: Any) -> None:
    async def scenario() -> None:
        before = len(os.listdir("/proc/self/fd"))
        for pause in range(12):
            site = Site(*[OK] * 20)
            client, near = tcp_pair()
            ours, theirs = tcp_pair()

            async def connect(_: ConnectTo, /, ours: Stream = ours) -> Stream:
                return ours

            serving = asyncio.ensure_future(HttpProxy(connect=connect)(near))
            answering = asyncio.ensure_future(site(theirs))
            await client.write(GET * 3 + GET.replace(b"site", b"else") * (pause % 2))
            for _ in range(pause * 3):
                await asyncio.sleep(0)
            if pause > 8:
                await wait_until_async(partial(more_than, site, 2))
            serving.cancel()
            answering.cancel()
            await asyncio.gather(serving, answering, return_exceptions=True)
            for stream in (client, near, ours, theirs):
                stream.abort()
        carrier = await courier()
        await wait_until_async(lambda: not carrier.group.flows())
        await wait_until_async(lambda: not carrier._waiting and not carrier._watching)
        await wait_until_async(lambda: len(os.listdir("/proc/self/fd")) <= before + 8)

    run(scenario())


def test_requests_are_told_one_by_one_and_together(run: Any) -> None:
    async def scenario() -> None:
        each = (await talk(Site(*[OK] * 9), *[GET] * 9, lower=True)).told
        sums = (await talk(Site(*[OK] * 9), *[GET] * 9, lower=True, each=lambda: False)).told
        # The first one is Python's.
        assert [(one.method, one.requests, one.live) for one in sums] == [
            ("GET", 1, False),
            ("", 8, False),
        ]
        assert [one for one in each if not one.live] == [each[0], each[-1]]
        assert [one.method for one in each if one.live] == ["GET"] * 8
        for way in ("bytes_up", "bytes_down"):
            of_each = sum(getattr(one, way) for one in each if one.live)
            assert of_each == getattr(sums[-1], way) == getattr(each[-1], way) > 0

    run(scenario())


@pytest.mark.parametrize("each", [True, False])
def test_what_was_moved_before_a_cut_is_told(run: Any, each: bool) -> None:
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 5_000_000

    async def scenario() -> None:
        # It ends within its third answer.
        site = Site(OK, OK, large, ends_after=3)
        done = await talk(site, GET, GET, GET, lower=True, each=lambda: each)
        assert done.failed
        counted = [one for one in done.told if not one.live]
        assert sum(one.requests for one in counted) == 3
        # All that a socket holds has gone on at least.
        assert sum(one.bytes_down for one in counted) > 100_000

    run(scenario())


def test_an_exchange_is_a_flow_that_can_be_cut(run: Any) -> None:
    async def scenario() -> None:
        site = Site(*[OK] * 3)
        client, near = tcp_pair()
        ours, theirs = tcp_pair()

        async def connect(_: ConnectTo, /) -> Stream:
            return ours

        serving = asyncio.ensure_future(HttpProxy(connect=connect)(near))
        answering = asyncio.ensure_future(site(theirs))
        for _ in range(3):
            await client.write(GET)
            seen = b""
            while not seen.endswith(b"hello"):
                seen += await client.read()
        carrier = await courier()
        (flow,) = carrier.group.flows()
        assert flow["target"] == "site.test:80"
        assert flow["bytes_up"] > 0
        assert carrier.group.kill(flow["id"])
        assert await serving is None
        with pytest.raises(StackError):
            await client.read()
        answering.cancel()
        for stream in (client, near, ours, theirs):
            stream.abort()
        await asyncio.gather(answering, return_exceptions=True)

    run(scenario())


def test_the_engine_gets_what_follows_an_odd_request(run: Any) -> None:
    """It is asked once before and once behind, and not again and again for the odd one."""
    odd = GET.replace(b"Host", b"TE: trailers\r\nHost")

    async def scenario() -> None:
        done = await talk(Site(*[OK] * 8), GET, GET, odd, odd, GET, GET, odd, GET, lower=True)
        assert done.answers.count(b"HTTP/1.1 200 OK") == 8
        assert done.exchanges == 4
        assert done.connections == 1

    run(scenario())
