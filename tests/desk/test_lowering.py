"""Two sockets of Python's become a flow that the engine moves."""

from __future__ import annotations

import json
import os
import socket
import threading
import time

import pytest

from qanat._engine import EngineError
from qanat.plan import LimitsPlan
from tests.support.desks import Held, descriptors, read_all, reset, say
from tests.support.wait import wait_until

MEGABYTE = 1 << 20


def test_bytes_go_both_ways_and_unread_ones_go_first(held: Held) -> None:
    flow, client, target = held.lower(b"GET / ", b"220 ")
    client.sendall(b"HTTP/1.1")
    target.sendall(b"welcome")
    client.shutdown(socket.SHUT_WR)
    assert read_all(target) == b"GET / HTTP/1.1"
    target.sendall(b" and bye")
    target.close()
    assert read_all(client) == b"220 welcome and bye"
    ended = held.hear(flow, "ended")
    assert (ended["reason"], ended["up"], ended["down"]) == ("client_closed", 14, 19)
    client.close()


@pytest.mark.parametrize("size", [0, 1, 65_536, 3 * MEGABYTE])
def test_any_amount_of_unread_bytes_arrives_whole(held: Held, size: int) -> None:
    up, down = os.urandom(size), os.urandom(size)
    flow, client, target = held.lower(up, down)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(read_all(target)))
    reader.start()
    client.shutdown(socket.SHUT_WR)
    reader.join()
    assert got == [up]
    target.shutdown(socket.SHUT_WR)
    assert read_all(client) == down
    assert held.hear(flow, "ended")["up"] == size
    client.close()
    target.close()


def test_bulk_is_moved_whole(held: Held) -> None:
    data = os.urandom(16 * MEGABYTE)
    _, client, target = held.lower()
    sender = threading.Thread(target=say, args=(client, data))
    sender.start()
    assert read_all(target) == data
    sender.join()
    client.close()
    target.close()


def test_the_flow_is_a_row_like_any_other(held: Held) -> None:
    flow, client, target = held.lower(
        client="192.0.2.1:5000",
        peer="198.51.100.9:80",
        listener="127.0.0.2:1080",
        user="alice",
        age=2.0,
        connect=0.5,
    )
    (row,) = held.flows()
    assert row["id"] == flow
    assert row["endpoint"] == "proxy"
    assert row["client"] == "192.0.2.1:5000"
    assert row["target"] == "t.test:80"
    assert row["peer"] == "198.51.100.9:80"
    assert row["listener"] == "127.0.0.2:1080"
    assert row["user"] == "alice"
    assert row["connect"] == pytest.approx(0.5)
    assert row["duration"] >= 2.0
    (stats,) = json.loads(held.engine.stats(held.group))["endpoints"]
    assert stats["tcp"]["open"] == 1
    assert stats["tcp"]["connect"]["count"] == 1
    assert held.engine.open_flows(held.group) == 1
    client.close()
    target.close()
    held.hear(flow, "ended")
    assert held.flows() == []
    assert held.engine.open_flows(held.group) == 0


def test_a_reset_is_carried_over(held: Held) -> None:
    flow, client, target = held.lower()
    client.sendall(b"x")
    assert target.recv(1) == b"x"
    reset(client)
    with pytest.raises(ConnectionResetError):
        target.recv(1)
    assert held.hear(flow, "ended")["reason"] == "client_reset"
    target.close()


def test_an_idle_flow_ends_after_its_own_time(held: Held) -> None:
    lasting, _, _ = held.lower()
    flow, client, target = held.lower(idle_timeout=0.2)
    assert held.hear(flow, "ended")["reason"] == "idle_timeout"
    for leg in (client, target):
        with pytest.raises(ConnectionResetError):
            leg.recv(1)
        leg.close()
    assert [row["id"] for row in held.flows()] == [lasting]


def test_a_half_closed_flow_ends_after_its_linger(held: Held) -> None:
    flow, client, target = held.lower(linger=0.2)
    client.shutdown(socket.SHUT_WR)
    assert held.hear(flow, "ended")["reason"] == "linger_timeout"
    client.close()
    target.close()


def test_cutting_resets_both_legs(held: Held) -> None:
    flow, client, target = held.lower(b"hello")
    assert target.recv(5) == b"hello"
    assert held.desk.counters(flow) == (5, 0)
    held.desk.cut(flow)
    assert held.hear(flow, "ended")["reason"] == "killed"
    assert held.desk.counters(flow) is None
    for leg in (client, target):
        with pytest.raises(ConnectionResetError):
            leg.recv(1)
        leg.close()
    held.desk.cut(flow)
    for nothing in (0, 12_345, 1 << 45, (1 << 64) - 1):
        held.desk.cut(nothing)
        assert held.desk.counters(nothing) is None


def test_the_group_ends_them_as_it_ends_others(held: Held) -> None:
    flow, client, target = held.lower()
    assert held.engine.kill(held.group, flow)
    assert held.hear(flow, "ended")["reason"] == "killed"
    client.close()
    target.close()


def test_unix_sockets_are_legs_too(held: Held) -> None:
    ours, client = socket.socketpair()
    client.settimeout(10)
    theirs, target = held.pair()
    flow = held.desk.lower(ours.fileno(), theirs.fileno(), held.plan())
    ours.detach()
    theirs.detach()
    client.sendall(b"x" * 300_000)
    client.shutdown(socket.SHUT_WR)
    assert len(read_all(target)) == 300_000
    target.close()
    assert read_all(client) == b""
    assert held.hear(flow, "ended")["reason"] == "client_closed"
    client.close()


def test_what_can_not_be_a_leg_is_not_taken(held: Held) -> None:
    ours, client = held.pair()
    before = descriptors()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        for wrong in (listener.fileno(), datagrams.fileno(), 0, -1, 1_000_000, ours.fileno()):
            with pytest.raises(EngineError) as error:
                held.desk.lower(ours.fileno(), wrong, held.plan())
            assert error.value.code == "descriptor"
            assert error.value.errno is not None
    assert descriptors() <= before
    # The one that was well is still the caller's.
    ours.sendall(b"x")
    assert client.recv(1) == b"x"
    ours.close()
    client.close()


def test_what_the_engine_owns_is_not_taken_again(held: Held) -> None:
    ours, _ = held.pair()
    theirs, _ = held.pair()
    held.desk.adopt(ours.fileno())
    with pytest.raises(EngineError) as error:
        held.desk.lower(ours.fileno(), theirs.fileno(), held.plan())
    assert error.value.code == "descriptor"
    ours.detach()


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ("{}", "plan"),
        ("nonsense", "plan"),
        ('{"endpoint": 99999, "target": "t"}', "unknown"),
        ('{"endpoint": 0, "target": "t", "surprise": 1}', "plan"),
    ],
)
def test_a_wrong_plan_takes_nothing(held: Held, plan: str, code: str) -> None:
    ours, _ = held.pair()
    theirs, _ = held.pair()
    with pytest.raises(EngineError) as error:
        held.desk.lower(ours.fileno(), theirs.fileno(), plan)
    assert error.value.code == code


@pytest.mark.parametrize(
    "field",
    [
        {"client": "nobody"},
        {"peer": "1.2.3.4"},
        {"idle_timeout": -1.0},
        {"linger": -2.0},
        {"age": -1.0},
    ],
)
def test_a_wrong_value_is_named(held: Held, field: dict[str, object]) -> None:
    (name,) = field
    with pytest.raises(EngineError, match=name):
        held.desk.lower(0, 0, held.plan(**field))


def test_limits_of_the_group_hold() -> None:
    with Held.open(limits=LimitsPlan(connections=1)) as held:
        flow, client, target = held.lower()
        with pytest.raises(EngineError) as error:
            held.lower()
        assert error.value.code == "limit"
        client.close()
        target.close()
        held.hear(flow, "ended")
        _, client, target = held.lower()
        client.close()
        target.close()


def test_nothing_begins_while_too_many_reports_wait() -> None:
    with Held.open(waiting=1) as held:
        flow, client, target = held.lower()
        client.close()
        target.close()
        wait_until(lambda: not held.flows())
        ours, other = held.pair()
        with pytest.raises(EngineError) as error:
            held.desk.adopt(ours.fileno())
        assert error.value.code == "full"
        with pytest.raises(EngineError) as error:
            held.desk.dial('{"addresses": ["127.0.0.1:1"]}')
        assert error.value.code == "full"
        held.hear(flow, "ended")
        held.desk.adopt(ours.detach())
        other.close()


def test_flows_share_the_limits_of_a_name(held: Held) -> None:
    rate = 400_000.0
    held.desk.set_rates("alice", rate, None)
    flows = [held.lower(rates=("alice",)) for _ in range(2)]
    size = 200_000
    got: list[float] = []
    began = time.monotonic()

    def carry(client: socket.socket, target: socket.socket) -> None:
        sender = threading.Thread(target=say, args=(client, b"x" * size))
        sender.start()
        assert len(read_all(target)) == size
        got.append(time.monotonic() - began)
        sender.join()

    threads = [threading.Thread(target=carry, args=flow[1:]) for flow in flows]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Both together at 400 kB/s take a second; without sharing, half of that. A busy machine can
    # only make it longer.
    assert max(got) > 0.8


def test_limits_come_and_go_while_flows_live(held: Held) -> None:
    held.desk.set_rates("alice", None, 1_000.0)
    flow, client, target = held.lower(rates=("alice",))
    # The other direction is free; this one would take minutes.
    client.sendall(b"x" * 100_000)
    client.shutdown(socket.SHUT_WR)
    assert len(read_all(target)) == 100_000
    target.sendall(b"x" * 200_000)
    assert client.recv(1) == b"x"
    (row,) = held.flows()
    assert row["bytes_down"] < 200_000
    held.desk.set_rates("alice", None, 1e9)
    target.close()
    assert len(read_all(client)) == 200_000 - 1
    held.hear(flow, "ended")


def test_a_limit_that_is_none_is_refused(held: Held) -> None:
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(EngineError) as error:
            held.desk.set_rates("alice", wrong, None)
        assert error.value.code == "plan"


def test_names_with_limits_are_bounded(held: Held) -> None:
    for number in range(65_536):
        held.desk.set_rates(str(number), 1.0, 1.0)
    with pytest.raises(EngineError) as error:
        held.desk.set_rates("one more", 1.0, 1.0)
    assert error.value.code == "full"
    with pytest.raises(EngineError) as error:
        held.lower(rates=("one more",))
    assert error.value.code == "full"
    held.desk.set_rates("0", None, None)
    held.desk.set_rates("one more", 1.0, None)


def test_an_endpoint_goes_with_its_flows(held: Held) -> None:
    flow, client, target = held.lower()
    held.desk.close_endpoint(held.endpoint)
    with pytest.raises(EngineError) as error:
        held.lower()
    assert error.value.code == "unknown"
    client.sendall(b"still here")
    assert target.recv(10) == b"still here"
    client.close()
    target.close()
    held.hear(flow, "ended")

    def gone() -> bool:
        endpoints = json.loads(held.engine.stats(held.group))["endpoints"]
        return all(endpoint["closed"] for endpoint in endpoints)

    wait_until(gone)
    held.desk.close_endpoint(held.endpoint)
