"""Datagrams on real paths: several addresses, small MTUs, both families, targets that go away."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import pytest

from tests.e2e.conftest import Start
from tests.support.datagrams import echo, numbered, udp_client, udp_target
from tests.support.netns import Wire
from tests.support.relay_process import RelayProcess
from tests.support.wait import wait_until


def hear_numbered(sock: socket.socket, count: int, sizes: tuple[int, ...]) -> socket.socket:
    """So many datagrams in their order, each as it was sent."""
    for number in range(count):
        heard = sock.recv(65_535)
        wanted = numbered(number, sizes[number % len(sizes)])
        assert heard == wanted, f"{number}: {heard[:4]!r} of {len(heard)}"
    return sock


@pytest.mark.root
def test_answers_come_from_the_address_that_was_asked(start: Start, wire: Wire) -> None:
    """On a host with several addresses, also where one socket listens on all of them; the client's
    own socket is connected and hears nobody else."""
    wire.relay.ip(
        "address add 10.71.0.3/24 dev eth0",
        "address add 10.71.9.9/32 dev lo",
        "address add fd71::3/64 dev eth0 nodad",
    )
    wire.client.ip(f"route add 10.71.9.9 via {wire.NEAR}")
    remote = f"{wire.TARGET}:53"
    words = ("-u", "-t", "-l", "0.0.0.0:53", "-r", remote, "-l", "[::]:54", "-r", remote)
    relay = start(*words, before=wire.relay.before)
    with ExitStack() as stack:
        with wire.target.entered():
            target = stack.enter_context(udp_target(wire.TARGET, 53))
        asked = [
            *((host, 53) for host in ("10.71.0.2", "10.71.0.3", "10.71.9.9")),
            *((host, 54) for host in ("10.71.0.3", "10.71.9.9", "fd71::2", "fd71::3")),
        ]
        with wire.client.entered():
            clients = [stack.enter_context(udp_client(address)) for address in asked]
        for number, client in enumerate(clients):
            client.send(numbered(number, 600))
            echo(target)
            assert client.recv(1_000) == numbered(number, 600)
        # One client socket, two addresses of ours: two associations that don't mix.
        with wire.client.entered():
            wild = stack.enter_context(udp_target("0.0.0.0"))
        for host in ("10.71.0.3", "10.71.0.2"):
            wild.sendto(host.encode(), (host, 53))
            echo(target)
            assert wild.recvfrom(100) == (host.encode(), (host, 53))
    assert relay.counted("udp")["open"] == 5


@pytest.mark.root
@pytest.mark.parametrize("mtu", [1500, 1280, 600])
def test_trains_pass_where_the_path_is_narrow(start: Start, wire: Wire, mtu: int) -> None:
    """Runs of equal datagrams that the kernel can't send in one piece are sent as they can be:
    whole and in order, both ways."""
    wire.relay.ip(f"link set eth1 mtu {mtu}")
    wire.target.ip(f"link set eth0 mtu {mtu}")
    words = ("-u", "-t", "-l", f"{wire.NEAR}:53", "-r", f"{wire.TARGET}:53")
    relay = start(*words, before=wire.relay.before)
    with ExitStack() as stack:
        with wire.target.entered():
            target = stack.enter_context(udp_target(wire.TARGET, 53))
        with wire.client.entered():
            client = stack.enter_context(udp_client((wire.NEAR, 53)))
        client.send(b"open")
        (sender,) = echo(target)
        assert client.recv(100) == b"open"
        # Equal runs, runs with a short end, and runs in which every size differs.
        for sizes in ((1_400,), (1_200,), (1_300, 1_300, 1_300, 90), (4, 1_472, 700, 3_000)):
            for _ in range(3):
                for number in range(48):
                    client.send(numbered(number, sizes[number % len(sizes)]))
                hear_numbered(target, 48, sizes)
                for number in range(48):
                    target.sendto(numbered(number, sizes[number % len(sizes)]), sender)
                hear_numbered(client, 48, sizes)
    counted = relay.counted("udp")
    assert counted["dropped"] == {}
    assert counted["packets_up"] == counted["packets_down"] == 1 + 4 * 3 * 48


@pytest.mark.root
def test_the_longest_datagram_passes_in_fragments(start: Start, wire: Wire) -> None:
    words = ("-u", "-t", "-l", f"{wire.NEAR}:53", "-r", f"{wire.TARGET}:53")
    relay = start(*words, before=wire.relay.before)
    with ExitStack() as stack:
        with wire.target.entered():
            target = stack.enter_context(udp_target(wire.TARGET, 53))
        with wire.client.entered():
            client = stack.enter_context(udp_client((wire.NEAR, 53)))
        for size in (65_507, 0, 1, 65_506, 9_000):
            client.send(numbered(size, size))
            echo(target)
            assert client.recv(65_535) == numbered(size, size)
    assert relay.counted("udp")["dropped"] == {}


def test_a_datagram_that_does_not_fit_spoils_no_other(start: Start) -> None:
    """IPv6 carries twenty bytes more than IPv4 in one datagram: too many for this target."""
    with udp_target() as target:
        remote = f"127.0.0.1:{target.getsockname()[1]}"
        relay = start("-u", "-t", "-l", "[::1]:0", "-r", remote)
        with udp_client(relay.address) as client, udp_client(relay.address) as other:
            for size in (100, 65_527, 101):
                client.send(numbered(size, size))
            other.send(b"me too")
            heard = [target.recv(65_535) for _ in range(3)]
            assert sorted(map(len, heard)) == [6, 100, 101]
            wait_until(lambda: relay.counted("udp")["dropped"] == {"too_big": 1})
            client.send(b"still here")
            echo(target)
            assert client.recv(100) == b"still here"


def test_long_streams_keep_their_order_and_lose_nothing(start: Start) -> None:
    """Both ways at once, each burst within what any socket holds: only the relay could lose any."""
    sizes = (1_200, 1_200, 1_200, 1_200, 300, 64, 8_000)
    with udp_target() as target:
        remote = f"127.0.0.1:{target.getsockname()[1]}"
        relay = start("-u", "-t", "-l", "127.0.0.1:0", "-r", remote)
        with udp_client(relay.address) as client:
            client.send(b"open")
            (sender,) = echo(target)
            assert client.recv(100) == b"open"
            for _ in range(150):
                for number in range(28):
                    client.send(numbered(number, sizes[number % len(sizes)]))
                    target.sendto(numbered(number, sizes[number % len(sizes)]), sender)
                hear_numbered(target, 28, sizes)
                hear_numbered(client, 28, sizes)
    counted = relay.counted("udp")
    assert counted["packets_up"] == counted["packets_down"] == 150 * 28 + 1


@pytest.mark.root
def test_a_target_that_is_down_is_counted_and_may_come_up(start: Start, wire: Wire) -> None:
    """Errors by ICMP end nothing: the next datagram is tried again."""
    words = ("-u", "-t", "-l", f"{wire.NEAR}:53", "-r", f"{wire.TARGET}:53")
    relay = start(*words, before=wire.relay.before)
    with wire.client.entered():
        client_socket = udp_client((wire.NEAR, 53))
    with client_socket as client:
        for number in range(5):
            client.send(b"anybody?")
            errors = number + 1
            wait_icmp(relay, errors)
        (shown,) = relay.flows()
        with wire.target.entered():
            target_socket = udp_target(wire.TARGET, 53)
        with target_socket as target:
            client.send(b"now?")
            echo(target)
            assert client.recv(100) == b"now?"
        assert [flow["id"] for flow in relay.flows()] == [shown["id"]]
        wire.relay.ip("link set eth1 down")
        client.send(b"and without a way?")
        wait_until(lambda: relay.counted("udp")["dropped"], what="the drop is counted")
        wire.relay.ip("link set eth1 up")


def wait_icmp(relay: RelayProcess, count: int) -> None:
    wait_until(lambda: relay.counted("udp")["icmp_errors"] >= count, what="errors are counted")


@pytest.mark.parametrize("speaker", ["client", "target"])
def test_a_flow_in_one_direction_outlives_the_timeout_and_then_ends_by_it(
    start: Start, speaker: str
) -> None:
    with udp_target() as target:
        remote = f"127.0.0.1:{target.getsockname()[1]}"
        relay = start("-u", "-t", "-l", "127.0.0.1:0", "-r", remote, "--udp-timeout", "1")
        with udp_client(relay.address) as client:
            client.send(b"open")
            (sender,) = echo(target)
            assert client.recv(100) == b"open"
            for _ in range(10):
                time.sleep(0.25)
                if speaker == "client":
                    client.send(b"tick")
                    assert target.recvfrom(100) == (b"tick", sender), "a new association"
                else:
                    target.sendto(b"tick", sender)
                    assert client.recv(100) == b"tick"
            assert relay.end_of_flow(10)["reason"] == "expired"
            assert relay.ended()[0]["duration"] >= 2.5


def test_clients_through_one_source_address_have_their_own_answers(start: Start) -> None:
    with udp_target() as target:
        remote = f"127.0.0.1:{target.getsockname()[1]}"
        relay = start("-u", "-t", "-l", "127.0.0.1:0", "-r", remote, "-x", "127.0.0.9")
        with ExitStack() as stack:
            clients = [stack.enter_context(udp_client(relay.address)) for _ in range(20)]
            for number, client in enumerate(clients):
                client.send(numbered(number, 40))
            senders = echo(target, len(clients))
            assert {host for host, _ in senders} == {"127.0.0.9"}
            assert len(set(senders)) == len(clients)
            for number, client in enumerate(clients):
                assert client.recv(100) == numbered(number, 40)


def test_two_programs_can_not_share_a_port_unnoticed(start: Start) -> None:
    with udp_target() as target:
        remote = f"127.0.0.1:{target.getsockname()[1]}"
        relay = start("-u", "-t", "-l", "127.0.0.1:0", "-r", remote)
        host, port = relay.address
        with pytest.raises(AssertionError, match="in use"):
            start("-u", "-t", "-l", f"{host}:{port}", "-r", remote)
