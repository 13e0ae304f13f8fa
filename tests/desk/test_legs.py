"""Legs that Python holds: bytes in and out, bounds, ends, and joining two of them."""

from __future__ import annotations

import json
import os
import socket
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qanat._engine import EngineError
from qanat.plan import DialPlan, to_json
from tests.support.desks import Held, read_all, reset, say

MEGABYTE = 1 << 20
QUEUE = 128 * 1024


def code_of(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises(EngineError) as error:
        call(*arguments)
    return error.value.code


def test_bytes_go_in_and_out(held: Held) -> None:
    leg, peer = held.adopt(b"unread ")
    peer.sendall(b"and read")
    assert held.read(leg, 15) == b"unread and read"
    held.write(leg, b"answer")
    assert peer.recv(100) == b"answer"
    held.desk.finish(leg)
    assert peer.recv(1) == b""
    peer.sendall(b"last words")
    peer.close()
    assert held.read(leg, 100) == b"last words"
    assert held.desk.read(leg, 1) == b""
    assert held.desk.read(leg, 1) == b""
    held.desk.close(leg)
    assert code_of(held.desk.read, leg, 1) == "closed"


def test_nothing_now_is_told_apart_from_the_end(held: Held) -> None:
    leg, peer = held.adopt()
    assert held.desk.read(leg, 10) is None
    assert held.desk.read(leg, 10) is None
    peer.sendall(b"x")
    held.hear(leg, "readable")
    assert held.desk.read(leg, 10) == b"x"
    # One report for however many reads, and none for what nobody asked for.
    peer.sendall(b"y")
    assert held.read(leg, 1) == b"y"
    assert not [report for report in held.heard() if report[1] != "readable"]
    assert held.desk.read(leg, 10) is None
    peer.close()
    held.hear(leg, "readable")
    assert held.desk.read(leg, 10) == b""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(
    sizes=st.lists(st.sampled_from([1, 2, 1_000, 65_536, 200_000]), max_size=6),
    most=st.sampled_from([1, 7, 4_096, 1 << 20]),
)
def test_any_pieces_arrive_in_order(held: Held, sizes: list[int], most: int) -> None:
    if most == 1:
        sizes = [min(size, 1_000) for size in sizes]
    data = os.urandom(sum(sizes))
    leg, peer = held.adopt()

    def say() -> None:
        at = 0
        for size in sizes:
            peer.sendall(data[at : at + size])
            at += size
        peer.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=say)
    sender.start()
    got = bytearray()
    while (part := held.desk.read(leg, most)) != b"":
        if part is None:
            held.hear(leg, "readable")
        else:
            assert len(part) <= most
            got += part
    sender.join()
    assert got == data
    held.desk.abort(leg)


def test_a_peer_waits_until_python_has_read(held: Held) -> None:
    leg, peer = held.adopt()
    assert held.desk.read(leg, 1) is None
    peer.setblocking(False)
    sent = 0
    while True:
        try:
            sent += peer.send(b"x" * 65_536)
        except BlockingIOError:
            # The socket buffers are full, and stay so.
            held.hear(leg, "readable")
            break
    peer.settimeout(10)
    peer.shutdown(socket.SHUT_WR)
    at_once = len(held.desk.read(leg, 1 << 30) or b"")
    assert at_once <= QUEUE
    rest = held.read(leg, sent)
    assert at_once + len(rest) == sent
    assert sent > QUEUE


def test_python_waits_until_the_peer_has_read(held: Held) -> None:
    leg, peer = held.adopt()
    data = os.urandom(16 * MEGABYTE)
    taken = 0
    while taken < len(data):
        count = held.desk.write(leg, memoryview(data)[taken:])
        assert count <= QUEUE
        taken += count
        # The worker may empty the queue between the two, as long as the kernel takes more.
        if count == 0 and not held.desk.drained(leg):
            break
    assert 0 < taken < len(data)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(read_all(peer)))
    reader.start()
    held.hear(leg, "writable")
    held.write(leg, data[taken:])
    held.drain(leg)
    held.desk.finish(leg)
    reader.join()
    assert got == [data]
    assert code_of(held.desk.write, leg, b"more") == "finished"


def test_a_reset_is_told_as_such(held: Held) -> None:
    leg, peer = held.adopt()
    assert held.desk.read(leg, 1) is None
    reset(peer)
    held.hear(leg, "readable")
    with pytest.raises(EngineError) as error:
        held.desk.read(leg, 1)
    assert (error.value.code, error.value.errno) == ("reset", 104)
    assert code_of(held.desk.join, leg, held.adopt()[0], held.plan()) == "reset"
    held.desk.close(leg)


def test_what_came_before_a_reset_is_not_lost(held: Held) -> None:
    leg, peer = held.adopt()
    peer.sendall(b"before")
    assert held.read(leg, 6) == b"before"
    reset(peer)
    assert code_of(held.read, leg, 1) == "reset"


def test_writing_to_nobody_fails(held: Held) -> None:
    leg, peer = held.adopt()
    held.write(leg, b"x")
    assert peer.recv(1) == b"x"
    reset(peer)

    def until_it_fails() -> None:
        while True:
            if held.desk.write(leg, b"x" * QUEUE) < QUEUE:
                held.hear(leg, "writable")

    assert code_of(until_it_fails) == "reset"
    assert code_of(held.desk.drained, leg) == "reset"


def test_closing_delivers_everything_first(held: Held) -> None:
    leg, peer = held.adopt()
    data = os.urandom(QUEUE)
    peer.sendall(b"unread and unwanted")
    assert held.desk.write(leg, data) == QUEUE
    held.desk.close(leg)
    held.desk.close(leg)
    assert read_all(peer) == data


def test_aborting_resets(held: Held) -> None:
    for carried in (False, True):
        leg, peer = held.adopt()
        if carried:
            held.desk.read(leg, 1)
        held.desk.abort(leg)
        held.desk.abort(leg)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
    assert not held.heard()


def test_reports_of_an_aborted_leg_are_dropped(held: Held) -> None:
    leg, peer = held.adopt()
    other, friend = held.adopt()
    for each in (leg, other):
        assert held.desk.read(each, 1) is None
    peer.sendall(b"x")
    friend.sendall(b"x")
    held.hear(other, "readable")
    held.desk.abort(leg)
    assert all(handle != leg for handle, _, _ in held.desk.take())


@pytest.mark.parametrize("touched", ["neither", "client", "target", "both"])
def test_joined_legs_lose_nothing(held: Held, touched: str) -> None:
    client_leg, client = held.adopt()
    target_leg, target = held.adopt()
    client.sendall(b"CONNECT x\n\nfirst")
    target.sendall(b"220 hello\nsecond")
    unread_client, unread_target = b"", b""
    if touched in ("client", "both"):
        got = held.read(client_leg, 13)
        assert got == b"CONNECT x\n\nfi"
        unread_client = got[11:]
        held.write(client_leg, b"200 OK\n\n")
    if touched in ("target", "both"):
        got = held.read(target_leg, 11)
        unread_target = got[10:]
        held.write(target_leg, b"MAIL\n")
    flow = held.desk.join(client_leg, target_leg, held.plan(), unread_client, unread_target)
    client.sendall(b" and more")
    client.shutdown(socket.SHUT_WR)
    target.sendall(b" and more")
    target.shutdown(socket.SHUT_WR)
    up, down = read_all(target), read_all(client)
    if touched in ("client", "both"):
        assert down.startswith(b"200 OK\n\n")
        assert up.endswith(b"first and more")
        assert b"CONNECT" not in up
    if touched in ("target", "both"):
        assert up.startswith(b"MAIL\n")
        assert down.endswith(b"second and more")
        assert b"220" not in down
    if touched == "neither":
        assert up == b"CONNECT x\n\nfirst and more"
        assert down == b"220 hello\nsecond and more"
    held.hear(flow, "ended")
    for leg in (client_leg, target_leg):
        assert code_of(held.desk.read, leg, 1) == "closed"


def test_full_queues_go_into_the_flow(held: Held) -> None:
    client_leg, client = held.adopt()
    target_leg, target = held.adopt()
    up, down = os.urandom(4 * MEGABYTE), os.urandom(4 * MEGABYTE)
    threads = [
        threading.Thread(target=say, args=(client, up)),
        threading.Thread(target=say, args=(target, down)),
    ]
    written = held.desk.write(client_leg, b"w" * QUEUE)
    for thread in threads:
        thread.start()
    first_up, first_down = held.read(client_leg, 1), held.read(target_leg, 1)
    got: list[bytes] = []
    flow = held.desk.join(client_leg, target_leg, held.plan(), first_up, first_down)
    reader = threading.Thread(target=lambda: got.append(read_all(target)))
    reader.start()
    assert read_all(client) == b"w" * written + down
    reader.join()
    assert got == [up]
    for thread in threads:
        thread.join()
    held.hear(flow, "ended")


def test_the_end_that_was_read_is_still_the_end(held: Held) -> None:
    client_leg, client = held.adopt()
    target_leg, target = held.adopt()
    client.sendall(b"all")
    client.shutdown(socket.SHUT_WR)
    assert held.read(client_leg, 10) == b"all"
    flow = held.desk.join(client_leg, target_leg, held.plan(), b"all")
    assert read_all(target) == b"all"
    target.sendall(b"answer")
    target.close()
    assert read_all(client) == b"answer"
    assert held.hear(flow, "ended")["reason"] == "client_closed"


def test_a_flow_can_be_cut_before_it_has_begun(held: Held) -> None:
    for _ in range(50):
        client_leg, client = held.adopt()
        target_leg, target = held.adopt()
        held.desk.read(client_leg, 1)
        held.desk.read(target_leg, 1)
        flow = held.desk.join(client_leg, target_leg, held.plan())
        held.desk.cut(flow)
        assert held.hear(flow, "ended")["reason"] == "killed"
        for leg in (client, target):
            with pytest.raises(ConnectionResetError):
                leg.recv(1)


def test_one_leg_is_no_flow(held: Held) -> None:
    leg, _ = held.adopt()
    assert code_of(held.desk.join, leg, leg, held.plan()) == "plan"
    assert code_of(held.desk.join, leg, 1, held.plan()) == "closed"
    other, _ = held.adopt()
    assert code_of(held.desk.join, leg, other, '{"endpoint": 77, "target": "t"}') == "unknown"
    # Neither was taken.
    flow = held.desk.join(leg, other, held.plan())
    held.desk.cut(flow)
    held.hear(flow, "ended")


def dial(held: Held, *addresses: str, **more: object) -> int:
    return held.desk.dial(json.dumps({"addresses": addresses, **more}))


def test_dialling_gives_a_leg(held: Held) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        leg = dial(held, f"{host}:{port}")
        facts = held.hear(leg, "connected")
        accepted, peer = server.accept()
        with accepted:
            assert facts["peer"] == f"{host}:{port}"
            assert facts["local"] == "{}:{}".format(*peer)
            accepted.sendall(b"220")
            assert held.read(leg, 3) == b"220"
            held.desk.close(leg)
            assert accepted.recv(1) == b""


def test_the_next_address_is_tried(held: Held) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        leg = dial(held, "127.0.0.1:1", "[::1]:1", f"{host}:{port}")
        assert held.hear(leg, "connected")["peer"] == f"{host}:{port}"


def test_a_name_is_resolved(held: Held) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        plan = {"name": {"host": "localhost", "port": port}}
        leg = held.desk.dial(json.dumps(plan))
        assert held.hear(leg, "connected")["peer"] == f"127.0.0.1:{port}"


def test_a_source_address_is_kept(held: Held) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        leg = dial(held, f"{host}:{port}", through="127.0.0.9:0")
        assert held.hear(leg, "connected")["local"].startswith("127.0.0.9:")


def test_a_failed_dial_says_why(held: Held) -> None:
    leg = dial(held, "127.0.0.1:1")
    assert code_of(held.desk.read, leg, 1) in ("busy", "connect_refused")
    failed = held.hear(leg, "failed")
    assert (failed["code"], failed["errno"]) == ("connect_refused", 111)
    assert code_of(held.desk.read, leg, 1) == "closed"
    leg = held.desk.dial('{"name": {"host": "no such name", "port": 1}}')
    assert held.hear(leg, "failed")["code"] == "resolve_failed"


def test_a_dial_is_bounded_in_time(held: Held) -> None:
    # A listener whose queue is full doesn't answer any more.
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        host, port = server.getsockname()
        fillers = []
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((host, port))
            fillers.append(filler)
        leg = dial(held, f"{host}:{port}", timeout=0.3)
        failed = held.hear(leg, "failed")
        assert failed["code"] == "connect_timeout"
        leg = dial(held, f"{host}:{port}", timeout=60.0)
        held.desk.abort(leg)
        for filler in fillers:
            filler.close()
    assert not held.heard()


@pytest.mark.parametrize(
    "plan",
    [
        to_json(DialPlan()),
        '{"addresses": ["127.0.0.1:1"], "name": {"host": "h", "port": 1}}',
        '{"addresses": ["somewhere"]}',
        '{"addresses": ["127.0.0.1:1"], "timeout": -1}',
        '{"addresses": ["127.0.0.1:1"], "through": "me"}',
        json.dumps({"addresses": ["127.0.0.1:1"] * 65}),
    ],
)
def test_a_wrong_dial_is_refused(held: Held, plan: str) -> None:
    assert code_of(held.desk.dial, plan) == "plan"
