"""What the engine makes of a message is what Python would make of it, or nothing."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qanat._engine import EngineError
from qanat.plan import ExchangePlan, JoinPlan, to_json
from qanat.proxy.http.hop_by_hop import (
    OUR_NAME,
    client_keeps_alive,
    forwarded_request,
    forwarded_response,
    server_keeps_alive,
)
from qanat.proxy.http.target import absolute_target
from qanat.stack.codec.http1 import (
    parse_request_head,
    parse_response_head,
    request_framing,
    response_framing,
)
from qanat.stack.codec.verdict import NeedMore
from qanat.stack.errors import RemoteProtocolError
from tests.support.desks import Held

ASK = b"%b http://site.test/ HTTP/1.1\r\n\r\n"


class Talk:
    """A client and a server with the engine between them."""

    def __init__(self, held: Held, unread: bytes) -> None:
        self.held = held
        self.client, ours = socket.socketpair()
        self.server, theirs = socket.socketpair()
        plan = ExchangePlan(
            flow=JoinPlan(endpoint=held.endpoint, target="site.test:80"),
            authority="site.test",
            via=OUR_NAME.decode(),
        )
        self.flow = held.desk.exchange(ours.fileno(), theirs.fileno(), to_json(plan), unread)
        ours.detach()
        theirs.detach()
        self._ended = False

    def passed(self, to: socket.socket) -> bytes | None:
        """What one of them gets; None when Python is to go on instead."""
        while True:
            ready, _, _ = select.select([to.fileno(), self.held.desk.fileno()], [], [], 10)
            if to.fileno() in ready:
                return to.recv(1 << 20)
            assert ready, "nothing happened"
            for _, kind, _ in self.held.desk.take():
                if kind == "ended":
                    self._ended = True
                    return None

    def left(self) -> tuple[bytes, bytes, bytes]:
        """Unread, asked, answered."""
        left = self.held.desk.recover(self.flow)
        assert left is not None
        for fd in left[:2]:
            if fd >= 0:
                os.close(fd)
        return left[2], left[3], left[4]

    def end(self) -> None:
        if not self._ended:
            self.held.desk.cut(self.flow)
            self.held.hear(self.flow, "ended")
        self.client.close()
        self.server.close()


@pytest.fixture(scope="module")
def desk() -> Iterator[Held]:
    with Held.open(workers=1) as held:
        yield held


blank = st.sampled_from([b" ", b"", b"  ", b"\t"])


def fields_of(usual: list[bytes], odd: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Mostly what nobody needs to decide about, and seldom more than one of the rest."""
    of = st.lists(st.sampled_from(usual), max_size=5)
    rest = st.lists(st.sampled_from(odd), max_size=2)
    mixed = st.tuples(of, st.just([]) | rest).flatmap(
        lambda both: st.permutations(both[0] + both[1])
    )
    return st.builds(lambda forms, gap: [form % gap for form in forms], mixed, blank)


lines = fields_of(
    [
        b"Host:%bsite.test",
        b"Accept:%b*/*",
        b"X-Odd:%b",
        b"x-high:%b\xff\x80",
        b"Connection:%bkeep-alive",
        b"Proxy-Connection:%bKeep-Alive",
        b"Keep-Alive:%b5",
    ],
    [
        b"Proxy-Authorization:%bBasic x",
        b"Content-Length:%b0",
        b"Content-Length:%b5",
        b"content-length:%b+5",
        b"Connection:%bclose",
        b"Connection:%bKeep-Alive, X-Odd",
        b"Transfer-Encoding:%bchunked",
        b"TE:%btrailers",
        b"Upgrade:%bh2c",
        b"Via:%b1.0 other",
        b"Expect:%b100-continue",
        b"Proxy-Authenticate:%bBasic",
        b"no field%b",
        b" folded:%bx",
        b"a b:%bc",
        b"bare:%b\rx",
        b"nul:%b\0",
    ],
)
line_ends = st.just(b"\r\n") | st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r"])
targets = st.just(b"http://site.test/") | st.sampled_from(
    [
        b"http://site.test/",
        b"http://site.test/a?b",
        b"http://site.test?q",
        b"http://site.test",
        b"http://site.test/a#b",
        b"http://site.testing/",
        b"http://site.test:80/",
        b"http://u@site.test/",
        b"http://site.test/\x7f",
        b"HTTP://site.test/",
        b"http:///x",
        b"/",
    ]
)
methods = st.just(b"GET") | st.sampled_from(
    [b"POST", b"HEAD", b"PUT", b"OPTIONS", b"get", b"CONNECT", b""]
)
versions = st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0", b"http/1.1"])


def head_of(first: bytes, fields: list[bytes], end: bytes) -> bytes:
    return end.join([first, *fields, b"", b""])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(methods, targets, versions, lines, line_ends)
def test_requests(
    desk: Held, method: bytes, target: bytes, version: bytes, fields: list[bytes], end: bytes
) -> None:
    head = head_of(b" ".join([method, target, version]), fields, end)
    if not head.endswith(b"\r\n\r\n"):
        # It would wait for more.
        head += b"\r\n\r\n"
    talk = Talk(desk, head + b"hello")
    try:
        passed = talk.passed(talk.server)
        if passed is None:
            unread, asked, answered = talk.left()
            assert (unread, asked, answered) == (head + b"hello", b"", b"")
            return
        found = parse_request_head(head + b"hello")
        assert not isinstance(found, NeedMore)
        asked_for = found.value
        wanted = absolute_target(asked_for)
        framing = request_framing(asked_for)
        text = forwarded_request(asked_for, wanted.path, wanted.host, chunked=False)
        assert (wanted.host, framing.kind in ("none", "length")) == (b"site.test", True)
        assert client_keeps_alive(asked_for)
        assert passed == text + b"hello"[: framing.length]
    finally:
        talk.end()


answer_lines = fields_of(
    [
        b"Keep-Alive:%b5",
        b"Via:%b1.0 a",
        b"via:%b1.1 b",
        b"Set-Cookie:%ba=b",
        b"X-Odd:%b\xe9",
        b"Connection:%bkeep-alive",
        b"Host:%bx",
    ],
    [
        b"Content-Length:%b0",
        b"Content-Length:%b5",
        b"Content-Length:%b5x",
        b"Transfer-Encoding:%bchunked",
        b"Transfer-Encoding:%bgzip",
        b"Connection:%bclose",
        b"Connection:%bX-Odd",
        b"Upgrade:%bh2c",
        b"TE:%bx",
        b"Expect:%bx",
        b"Proxy-Authenticate:%bBasic",
        b"no field%b",
        b" folded:%bx",
        b"nul:%b\0",
    ],
)
statuses = st.just(b"200 OK") | st.sampled_from(
    [
        b"200 OK",
        b"404",
        b"204 No Content",
        b"304 x",
        b"500 \xff",
        b"299 ",
        b"100 Continue",
        b"101 x",
        b"99 x",
        b"2000 x",
        b"600 x",
        b"x",
    ]
)
versions_back = st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([b"GET", b"HEAD"]), versions_back, statuses, answer_lines, line_ends)
def test_answers(
    desk: Held, method: bytes, version: bytes, status: bytes, fields: list[bytes], end: bytes
) -> None:
    head = head_of(version + b" " + status, fields, end)
    if not head.endswith(b"\r\n\r\n"):
        head += b"\r\n\r\n"
    talk = Talk(desk, ASK % method)
    try:
        assert talk.passed(talk.server)
        talk.server.sendall(head)
        passed = talk.passed(talk.client)
        if passed is None:
            assert talk.left() == (b"", ASK % method, head)
            return
        found = parse_response_head(head)
        assert not isinstance(found, NeedMore)
        answer = found.value
        framing = response_framing(answer, method)
        assert framing.kind != "until end"
        assert server_keeps_alive(answer)
        assert answer.status >= 200
        chunked = framing.kind == "chunked"
        text = forwarded_response(answer, chunked=chunked, close=False, old_client=False)
        assert passed == text
    finally:
        talk.end()


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_the_ordinary_is_passed_on(desk: Held, method: bytes) -> None:
    """Else everything above would hold for an engine that passes nothing."""
    talk = Talk(desk, ASK % method)
    assert talk.passed(talk.server)
    talk.server.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    passed = talk.passed(talk.client)
    assert passed is not None
    assert passed.startswith(b"HTTP/1.1 200 OK\r\n")
    talk.end()


def test_a_message_that_is_none_is_an_error_of_its_target(desk: Held) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_request_head(b"nonsense\r\n\r\n")
    talk = Talk(desk, b"nonsense\r\n\r\n")
    assert talk.passed(talk.server) is None
    assert talk.left()[0] == b"nonsense\r\n\r\n"
    # Once.
    assert desk.desk.recover(talk.flow) is None
    talk.end()


def test_what_is_no_plan_takes_nothing(desk: Held) -> None:
    one, other = socket.socketpair()
    with one, other:
        with pytest.raises(EngineError) as refused:
            desk.desk.exchange(one.fileno(), other.fileno(), '{"authority": "a"}', b"")
        assert refused.value.code == "plan"
        one.sendall(b"still ours")
        assert other.recv(100) == b"still ours"
