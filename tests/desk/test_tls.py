"""TLS on legs that Python holds, in both roles."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import pytest

from qanat._engine import EngineError
from tests.support.certificates import Authority
from tests.support.desks import Held, read_all, reset, say

T = TypeVar("T")
MEGABYTE = 1 << 20


def accept_plan(authority: Authority, *, pem: bool = False, **more: Any) -> str:
    cert, key = authority.folder / "server.crt", authority.folder / "server.key"
    names = (cert.read_text(), key.read_text()) if pem else (str(cert), str(key))
    options = more.pop("tls", {})
    tls = {"certificates": [{"cert": names[0], "key": names[1]}], **options}
    return json.dumps({"tls": tls, **more})


def connect_plan(authority: Authority, **more: Any) -> str:
    options = more.pop("tls", {})
    tls = {"sni": "server.test", "ca": str(authority.cert), **options}
    return json.dumps({"tls": tls, **more})


def aside(call: Callable[[], T]) -> Future[T]:
    """What ``call`` gives, in a thread of its own."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def shake_client(
    held: Held, authority: Authority, peer: socket.socket, identity: str | None = None
) -> Future[ssl.SSLSocket]:
    context = authority.client(identity)
    context.set_alpn_protocols(["http/1.1"])
    return aside(lambda: held.keep(context.wrap_socket(peer, server_hostname="server.test")))


def secure(
    held: Held, authority: Authority, **plan: Any
) -> tuple[int, ssl.SSLSocket, dict[str, Any]]:
    """A leg after its handshake with a client, the client, and what was reported."""
    leg, peer = held.adopt()
    held.desk.tls_accept(leg, accept_plan(authority, **plan))
    client = shake_client(held, authority, peer)
    facts = held.hear(leg, "shaken")
    return leg, client.result(10), facts


def to_server(held: Held, authority: Authority) -> tuple[int, ssl.SSLSocket]:
    """A leg after its handshake with a target, and the target."""
    leg, peer = held.adopt()
    held.desk.tls_connect(leg, connect_plan(authority))
    context = authority.server("server")
    target = aside(lambda: held.keep(context.wrap_socket(peer, server_side=True)))
    held.hear(leg, "shaken")
    return leg, target.result(10)


def test_python_speaks_through_tls_with_a_client(held: Held, authority: Authority) -> None:
    leg, client, facts = secure(held, authority, tls={"alpn": ["h2", "http/1.1"]})
    assert facts["version"] == "TLSv1.3"
    assert facts["sni"] == "server.test"
    assert facts["alpn"] == "http/1.1"
    assert facts["resumed"] is False
    assert facts["client_certificate"] is None
    assert "hello" not in facts
    client.sendall(b"question")
    assert held.read(leg, 8) == b"question"
    data = os.urandom(MEGABYTE)
    got = aside(lambda: read_all(client))
    held.write(leg, data)
    held.desk.finish(leg)
    # Without close_notify this would raise.
    assert got.result(10) == data
    held.desk.close(leg)


def test_python_speaks_through_tls_with_a_target(held: Held, authority: Authority) -> None:
    leg, target = to_server(held, authority)
    held.write(leg, b"question")
    assert target.recv(100) == b"question"
    data = os.urandom(MEGABYTE)
    sent = aside(lambda: target.sendall(data))
    assert held.read(leg, MEGABYTE) == data
    sent.result(10)
    held.desk.close(leg)
    assert target.recv(1) == b""


def test_the_hello_and_the_certificate_are_shown(held: Held, authority: Authority) -> None:
    leg, _, facts = secure(held, authority, hello=True)
    hello = bytes.fromhex(facts["hello"])
    assert hello[0] == 1
    assert int.from_bytes(hello[1:4]) == len(hello) - 4
    assert b"server.test" in hello
    peer, _ = held.adopt()
    held.desk.abort(peer)
    leg, peer_socket = held.adopt()
    held.desk.tls_connect(leg, connect_plan(authority))
    context = authority.server("server")
    aside(lambda: held.keep(context.wrap_socket(peer_socket, server_side=True)))
    shown = bytes.fromhex(held.hear(leg, "shaken")["certificate"])
    assert shown == ssl.PEM_cert_to_DER_cert((authority.folder / "server.crt").read_text())


def test_certificates_can_be_text(held: Held, authority: Authority) -> None:
    leg, client, _ = secure(held, authority, pem=True)
    client.sendall(b"x")
    assert held.read(leg, 1) == b"x"
    plan = json.dumps(
        {"tls": {"certificates": [{"cert": "-----BEGIN x", "key": "-----BEGIN secret"}]}}
    )
    other, _ = held.adopt()
    with pytest.raises(EngineError) as error:
        held.desk.tls_accept(other, plan)
    assert error.value.code == "plan"
    assert "secret" not in str(error.value)


def test_a_client_shows_who_it_is(held: Held, authority: Authority) -> None:
    leg, peer = held.adopt()
    plan = accept_plan(authority, tls={"client_ca": str(authority.cert)})
    held.desk.tls_accept(leg, plan)
    client = shake_client(held, authority, peer, "alice")
    assert held.hear(leg, "shaken")["client_certificate"] == "CN=alice,O=tests"
    client.result(10)
    leg, peer = held.adopt()
    held.desk.tls_accept(leg, plan)
    refused = shake_client(held, authority, peer)
    assert held.hear(leg, "failed")["code"] == "tls"
    with contextlib.suppress(OSError):
        # With TLS 1.3 a client learns of it at its first read.
        refused.result(10).recv(1)
    assert refused.done()


@pytest.mark.parametrize("how", ["adopted", "handed over", "read ahead"])
@pytest.mark.parametrize("count", [1, 5, 100])
def test_bytes_of_the_handshake_that_python_has_read(
    held: Held, authority: Authority, how: str, count: int
) -> None:
    ours, peer = held.pair()
    client = shake_client(held, authority, peer)
    if how == "adopted":
        first = ours.recv(count)
        leg = held.desk.adopt(ours.detach(), first)
        held.desk.tls_accept(leg, accept_plan(authority))
    elif how == "handed over":
        leg = held.desk.adopt(ours.detach())
        first = held.read(leg, count)
        held.desk.tls_accept(leg, accept_plan(authority), first)
    else:
        first = ours.recv(count)
        leg = held.desk.adopt(ours.detach(), first)
        assert held.desk.read(leg, 0) == b""
        held.desk.tls_accept(leg, accept_plan(authority))
    held.hear(leg, "shaken")
    client.result(10).sendall(b"hello")
    assert held.read(leg, 5) == b"hello"


def test_an_answer_in_the_clear_goes_before_the_handshake(held: Held, authority: Authority) -> None:
    leg, peer = held.adopt()
    held.write(leg, b"x" * 100_000)
    held.desk.tls_accept(leg, accept_plan(authority))
    got = b""
    while len(got) < 100_000:
        got += peer.recv(100_000 - len(got))
    client = shake_client(held, authority, peer)
    held.hear(leg, "shaken")
    client.result(10)


def test_what_is_no_tls_fails(held: Held, authority: Authority) -> None:
    leg, peer = held.adopt()
    held.desk.tls_accept(leg, accept_plan(authority))
    peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
    failed = held.hear(leg, "failed")
    assert failed["code"] == "tls"
    with pytest.raises(EngineError):
        held.desk.read(leg, 1)


def test_a_peer_that_goes_away_is_told_apart(held: Held, authority: Authority) -> None:
    for leave, code in ((socket.socket.close, "closed"), (reset, "reset")):
        leg, peer = held.adopt()
        held.desk.tls_accept(leg, accept_plan(authority))
        leave(peer)
        assert held.hear(leg, "failed")["code"] == code


def test_a_silent_peer_is_given_up(held: Held, authority: Authority) -> None:
    leg, peer = held.adopt()
    held.desk.tls_accept(leg, accept_plan(authority, handshake_timeout=0.2))
    assert held.hear(leg, "failed")["code"] == "handshake_timeout"
    peer.close()


def test_a_wrong_certificate_is_refused(held: Held, authority: Authority) -> None:
    leg, peer = held.adopt()
    held.desk.tls_connect(leg, connect_plan(authority, tls={"sni": "other.test"}))
    context = authority.server("server")
    target = aside(lambda: context.wrap_socket(peer, server_side=True))
    failed = held.hear(leg, "failed")
    assert failed["code"] == "tls"
    with pytest.raises(OSError):
        target.result(10)


def test_tls_within_tls_is_refused(held: Held, authority: Authority) -> None:
    leg, client, _ = secure(held, authority)
    with pytest.raises(EngineError) as error:
        held.desk.tls_accept(leg, accept_plan(authority))
    assert error.value.code == "wrapped"
    client.sendall(b"x")
    assert held.read(leg, 1) == b"x"


def test_a_leg_that_shakes_hands_does_nothing_else(held: Held, authority: Authority) -> None:
    leg, _ = held.adopt()
    other, _ = held.adopt()
    held.desk.tls_accept(leg, accept_plan(authority))
    for call in (
        lambda: held.desk.read(leg, 1),
        lambda: held.desk.write(leg, b"x"),
        lambda: held.desk.finish(leg),
        lambda: held.desk.tls_accept(leg, accept_plan(authority)),
        lambda: held.desk.join(leg, other, held.plan()),
    ):
        with pytest.raises(EngineError) as error:
            call()
        assert error.value.code == "busy"


@pytest.mark.parametrize("abort", [True, False])
def test_a_handshake_can_be_left(held: Held, authority: Authority, abort: bool) -> None:
    leg, peer = held.adopt()
    held.desk.tls_accept(leg, accept_plan(authority))
    (held.desk.abort if abort else held.desk.close)(leg)
    with contextlib.suppress(ConnectionResetError):
        assert peer.recv(1) == b""
    assert not held.heard()


@pytest.mark.parametrize("attempt", range(4))
def test_a_joined_flow_of_tls_legs(held: Held, authority: Authority, attempt: int) -> None:
    """Attempts differ in the workers that the legs are on."""
    for _ in range(attempt):
        held.desk.read(held.adopt()[0], 1)
    client_leg, client, _ = secure(held, authority)
    target_leg, target = to_server(held, authority)
    client.sendall(b"first ")
    assert held.read(client_leg, 2) == b"fi"
    held.write(target_leg, b"head ")
    flow = held.desk.join(client_leg, target_leg, held.plan(), b"fi")
    up, down = os.urandom(2 * MEGABYTE), os.urandom(2 * MEGABYTE)
    heard = aside(lambda: target_reads(target, 11 + len(up)))
    said = aside(lambda: client.sendall(up))
    assert heard.result(10) == b"head first " + up
    said.result(10)
    said = aside(lambda: target.sendall(down))
    assert target_reads(client, len(down)) == down
    said.result(10)
    (row,) = held.flows()
    assert (row["tls"], row["target_tls"], row["sni"]) == ("TLSv1.3", "TLSv1.3", "server.test")
    left = aside(client.unwrap)
    assert target.recv(1) == b""
    target.unwrap().close()
    left.result(10).close()
    ended = held.hear(flow, "ended")
    assert ended["down"] == len(down)
    # What Python wrote may have been on its way before the flow began.
    assert ended["up"] - len(up) in (6, 11)


def target_reads(sock: ssl.SSLSocket, count: int) -> bytes:
    got = bytearray()
    while len(got) < count:
        part = sock.recv(65_536)
        assert part
        got += part
    return bytes(got)


def test_a_plain_leg_joins_one_with_tls(held: Held, authority: Authority) -> None:
    client_leg, client = held.adopt()
    target_leg, target = to_server(held, authority)
    flow = held.desk.join(client_leg, target_leg, held.plan(), b"hello")
    assert target.recv(100) == b"hello"
    data = os.urandom(MEGABYTE)
    said = aside(lambda: say(target, data))
    assert read_all(client) == data
    said.result(10)
    client.close()
    held.hear(flow, "ended")
