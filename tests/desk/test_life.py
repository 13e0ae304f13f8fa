"""What becomes of a desk and all that it holds at the end, and in a forked child."""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import warnings

import pytest

from qanat._engine import Desk, Engine, EngineError
from tests.desk.test_tls import accept_plan
from tests.support.certificates import Authority
from tests.support.desks import Held, descriptors, pair
from tests.support.wait import wait_until


def open_everything(held: Held, authority: Authority) -> list[socket.socket]:
    """Something in every state that there is; the ends that are not the engine's."""
    ends = []
    _, end = held.adopt()
    ends.append(end)
    read, end = held.adopt()
    ends.append(end)
    assert held.desk.read(read, 1) is None
    shaking, end = held.adopt()
    ends.append(end)
    held.desk.tls_accept(shaking, accept_plan(authority))
    _, *both = held.lower(b"up", b"down")
    ends += both
    leg, end = held.adopt()
    other, other_end = held.adopt()
    ends += [end, other_end]
    held.desk.read(leg, 1)
    held.desk.read(other, 1)
    held.desk.join(leg, other, held.plan())
    closing, end = held.adopt()
    ends.append(end)
    held.desk.write(closing, b"x")
    held.desk.close(closing)
    _, text = held.desk.listen('{"listen": "127.0.0.1:0"}')
    host, port = text.rsplit(":", 1)
    ends.append(held.keep(socket.create_connection((host, int(port)))))
    secure = {"listen": "127.0.0.1:0", "tls": json.loads(accept_plan(authority))}
    _, text = held.desk.listen(json.dumps(secure))
    ends.append(held.keep(socket.create_connection((host, int(text.rsplit(":", 1)[1])))))
    held.desk.dial(json.dumps({"addresses": ["192.0.2.1:1", text]}))
    held.desk.dial('{"name": {"host": "nobody.invalid", "port": 1}}')
    return ends


@pytest.mark.parametrize("how", ["shutdown", "dropped"])
def test_nothing_is_left_open(authority: Authority, how: str) -> None:
    with Held.open() as held:
        before = descriptors()
        held.desk.shutdown()
        gc.collect()
        # Another desk of the same engine, whose descriptors are known.
        held.desk = Desk(held.engine, held.group)
        held.endpoint = held.desk.endpoint("proxy", "")
        ends = open_everything(held, authority)
        ours = {end.fileno() for end in ends}
        if how == "shutdown":
            held.desk.shutdown()
        else:
            held.desk = Desk(held.engine, held.group)
            gc.collect()
            held.desk.shutdown()

        def left() -> set[tuple[str, str]]:
            return {one for one in descriptors() - before if int(one[0]) not in ours}

        # Sockets that a name is asked for with belong to the resolver, and go in time.
        wait_until(lambda: not left(), what="nothing is left open")
        assert held.flows() == []
        assert held.engine.open_flows(held.group) == 0


def test_a_closed_desk_says_so(held: Held) -> None:
    leg, _ = held.adopt()
    held.desk.shutdown()
    held.desk.shutdown()
    ours, _ = held.pair()
    for call in (
        lambda: held.desk.fileno(),
        lambda: held.desk.adopt(ours.fileno()),
        lambda: held.desk.read(leg, 1),
        lambda: held.desk.endpoint("x", ""),
        lambda: held.desk.dial('{"addresses": ["127.0.0.1:1"]}'),
        lambda: held.desk.listen('{"listen": "127.0.0.1:0"}'),
        lambda: held.desk.counters(1),
        lambda: held.desk.cut(1),
    ):
        with pytest.raises(EngineError) as error:
            call()
        assert error.value.code == "closed"
    assert held.desk.take() == []
    held.desk.close(leg)
    held.desk.abort(leg)


def test_an_engine_that_ends_takes_everything_along(authority: Authority) -> None:
    with Held.open() as held:
        ends = open_everything(held, authority)
        held.engine.shutdown()
        for end in ends:
            end.settimeout(10)
            try:
                while end.recv(100):
                    pass
            except ConnectionResetError:
                pass
        with pytest.raises(EngineError) as error:
            held.desk.dial('{"addresses": ["127.0.0.1:1"]}')
        assert error.value.code == "closed"


def test_a_closed_group_takes_no_more(held: Held) -> None:
    flow, client, _ = held.lower()
    held.engine.close_group(held.group)
    assert held.hear(flow, "ended")["reason"] == "shutdown"
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(EngineError) as error:
        held.lower()
    assert error.value.code == "closed"


def test_desks_are_apart(held: Held) -> None:
    with Held.open() as far:
        other = Desk(held.engine, held.group)
        endpoint = other.endpoint("other", "")
        flow, client, _ = held.lower()
        ours, theirs = held.pair()
        leg = other.adopt(ours.detach())
        with pytest.raises(EngineError):
            held.desk.read(leg, 1)
        with pytest.raises(EngineError):
            held.desk.lower(theirs.fileno(), client.fileno(), held.plan(endpoint=endpoint + 1000))
        other.cut(flow)
        assert len(held.flows()) == 1
        other.shutdown()
        assert [row["id"] for row in held.flows()] == [flow]
        assert not far.flows()
        held.desk.cut(flow)
        assert held.hear(flow, "ended")["reason"] == "killed"


def test_no_such_group(held: Held) -> None:
    with pytest.raises(EngineError) as error:
        Desk(held.engine, 99_999)
    assert error.value.code == "unknown"


def sockets() -> set[int]:
    return {int(name) for name, what in descriptors() if what.startswith("socket:")}


def test_a_forked_child_has_no_desk(authority: Authority) -> None:
    with Held.open() as held:
        before = sockets()
        ends = open_everything(held, authority)
        ours = {end.fileno() for end in ends}
        with warnings.catch_warnings():
            # Newer Pythons warn of every fork with threads, also of one that goes well.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            try:
                held.engine.after_fork_in_child()
                try:
                    held.desk.take()
                except EngineError as error:
                    status = 0 if error.code == "closed" else 2
                held.desk.shutdown()
                status = 3 if sockets() - before - ours else status
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        # The parent's go on.
        client, target = ends[3], ends[4]
        assert client.recv(4) == b"down"
        assert target.recv(2) == b"up"


def test_a_leg_can_be_used_from_an_event_loop_of_ones_own() -> None:
    engine = Engine(1)
    desk = Desk(engine, engine.open_group("{}"))
    ours, theirs = pair()
    leg = desk.adopt(ours.detach())
    with select.epoll() as loop:
        loop.register(desk.fileno(), select.EPOLLIN)
        assert loop.poll(0) == []
        assert desk.read(leg, 1) is None
        theirs.sendall(b"x")
        assert loop.poll(10)
        assert desk.take() == [(leg, "readable", "")]
        assert loop.poll(0) == []
    theirs.close()
    desk.shutdown()
    engine.shutdown()
