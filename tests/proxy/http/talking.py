"""A client's words to a proxy over real sockets, and what came of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from qanat.proxy import HttpProxy
from qanat.proxy.http import Forwarded
from qanat.stack import ConnectTo, StackError, Stream
from qanat.stack.courier import courier
from tests.proxy.http.sites import Site, read_all
from tests.stack.pairs import tcp_pair
from tests.support.wait import wait_until_async

__all__ = ["GET", "OK", "Talk", "asking", "more_than", "talk"]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
GET = b"GET http://site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n"


def asking(line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([line, *fields, b"", body])


@dataclass
class Talk:
    """What came of a client's words to a proxy."""

    answers: bytes = b""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    told: list[Forwarded] = field(default_factory=list)
    exchanges: int = 0
    """Flows that the engine had."""
    failed: bool = False


async def talk(site: Site, *said: bytes, lower: bool, wait: bool = True, **settings: Any) -> Talk:
    """Each of what is said, when the answer to what was said before has come (with ``wait``)."""
    done = Talk()
    sites: list[asyncio.Task[None]] = []
    beside: list[Stream] = []

    async def connect(asked: ConnectTo, /) -> Stream:
        ours, theirs = tcp_pair()

        async def serve() -> None:
            try:
                await site(theirs)
            except StackError:
                pass
            finally:
                await theirs.aclose()

        sites.append(asyncio.ensure_future(serve()))
        beside.append(theirs)
        return ours

    proxy = HttpProxy(connect=connect, lower=lower, forwarded=done.told.append, **settings)
    client, near = tcp_pair()
    before = await _flows()

    async def serve() -> None:
        try:
            await proxy(near)
        except StackError:
            done.failed = True
            near.abort()
        else:
            await near.aclose()

    serving = asyncio.ensure_future(serve())
    try:
        for one in said:
            had, seen = len(site.requests), len(done.answers)
            await client.write(one)
            if not wait or one is said[-1]:
                continue
            await wait_until_async(partial(more_than, site, had))
            expected = site.said[-1].count(b"HTTP/1.1")
            while done.answers[seen:].count(b"\r\n\r\n") < expected:
                done.answers += await client.read()
            await asyncio.sleep(0)
        await client.write_eof()
        done.answers += await read_all(client)
    except StackError:
        done.failed = True
    finally:
        client.abort()
        await serving
        for stream in beside:
            stream.abort()
        await asyncio.gather(*sites)
    done.requests, done.connections = site.requests, site.connections
    done.exchanges = await _flows() - before
    return done


def more_than(site: Site, count: int) -> bool:
    return len(site.requests) > count


async def _flows() -> int:
    carrier = await courier()
    stats = carrier.group.stats()
    return sum(entry["tcp"]["total"] for entry in stats["endpoints"])
