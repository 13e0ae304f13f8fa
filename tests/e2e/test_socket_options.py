"""What the relay asks of the kernel for its sockets, read back from the sockets themselves."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.e2e.conftest import Start
from tests.support.foreign_sockets import sockets_of
from tests.support.netns import Wire
from tests.support.peers import (
    PATIENCE,
    Address,
    Target,
    beside,
    connect,
    end_writing,
    flow,
    hear,
    is_reset,
    pattern,
    read_to_end,
    reset,
    talk,
)
from tests.support.relay_process import RelayProcess
from tests.support.wait import wait_until

IPPROTO_MPTCP = 262

TCP = socket.IPPROTO_TCP
SOCKET = socket.SOL_SOCKET


@contextmanager
def legs(relay: RelayProcess) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two sockets of the only flow: towards the client, towards the target."""
    (shown,) = relay.flows()
    with sockets_of(relay.pid) as found:
        connected = {text(peer): sock for sock in found if (peer := peer_of(sock))}
        yield connected[shown["client"]], connected[shown["peer"]]


def peer_of(sock: socket.socket) -> Address | None:
    try:
        host, port = sock.getpeername()[:2]
    except OSError:
        return None
    return host, port


def text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.mark.root
def test_small_messages_do_not_wait_for_each_other(start: Start, target: Target) -> None:
    relay = start("-l", "127.0.0.1:0", "-r", target.address)
    with flow(relay.address, target) as (client, server):
        for _ in range(3):
            talk(client, server)
        with legs(relay) as both:
            assert [leg.getsockopt(TCP, socket.TCP_NODELAY) for leg in both] == [1, 1]


@pytest.mark.root
@pytest.mark.parametrize("seconds", [0, 41])
def test_keepalive_is_as_asked_on_both_legs(start: Start, target: Target, seconds: int) -> None:
    words = ("--tcp-keepalive", str(seconds), "--tcp-keepalive-probe", "7")
    relay = start("-l", "127.0.0.1:0", "-r", target.address, *words)

    def keepalive(leg: socket.socket) -> tuple[int, ...]:
        if not leg.getsockopt(SOCKET, socket.SO_KEEPALIVE):
            return ()
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        return tuple(leg.getsockopt(TCP, name) for name in names)

    with flow(relay.address, target) as (client, server):
        talk(client, server)
        with legs(relay) as both:
            wanted = (seconds, seconds, 7) if seconds else ()
            assert keepalive(both[0]) == wanted
            # Most flows end before it matters; the target's leg gets it when a flow lives on.
            if not seconds:
                time.sleep(1.5)
            wait_until(lambda: keepalive(both[1]) == wanted, 5)


@pytest.mark.root
def test_the_source_is_the_address_or_the_device_that_was_asked_for(
    start: Start, wire: Wire
) -> None:
    wire.relay.ip("address add 10.72.0.7/24 dev eth1")
    with wire.target.entered():
        target = Target(wire.TARGET, port=80)
        target6 = Target("fd72::2", port=80)
    with target, target6:
        for through, remote, source in (
            ("10.72.0.7", target, "10.72.0.7"),
            ("eth1", target, wire.FAR),
            ("eth1", target6, "fd72::1"),
        ):
            words = ("-l", f"{wire.NEAR}:0", "-r", remote.address, "-x", through)
            relay = start(*words, before=wire.relay.before)
            with wire.client.entered(), flow(relay.address, remote) as (client, server):
                assert server.getpeername()[0] == source
                talk(client, server)


@pytest.mark.root
def test_flows_leave_by_the_device_that_was_asked_for(start: Start, wire: Wire) -> None:
    """Where the table of routes would send them another way."""
    wire.client.ip("address add 10.73.0.1/32 dev lo")
    wire.target.ip("address add 10.73.0.1/32 dev lo")
    wire.relay.ip(f"route add 10.73.0.1 via {wire.CLIENT} metric 1")
    wire.relay.ip(f"route add 10.73.0.1 via {wire.TARGET} metric 2")
    with wire.target.entered():
        target = Target("10.73.0.1", port=80)
    words = ("-l", f"{wire.NEAR}:80", "-r", target.address, "-i", "eth1", "--tcp-timeout", "3")
    relay = start(*words, before=wire.relay.before)
    with target, wire.client.entered(), flow(relay.address, target) as (client, server):
        talk(client, server)
        with legs(relay) as (_, leg):
            name = leg.getsockopt(SOCKET, socket.SO_BINDTODEVICE, 16)
            assert name.rstrip(b"\0") == b"eth1"


@pytest.mark.root
def test_only_clients_of_one_device_are_served_when_asked_for(start: Start, wire: Wire) -> None:
    with wire.target.entered():
        target = Target(wire.TARGET, port=80)
    words = ("-l", "0.0.0.0:90", "-r", target.address, "-e", "eth0")
    relay = start(*words, before=wire.relay.before)
    with target:
        with wire.client.entered(), flow((wire.NEAR, 90), target) as (client, server):
            talk(client, server)
        with wire.target.entered(), pytest.raises(ConnectionRefusedError):
            connect((wire.FAR, 90))
    assert relay.counted()["total"] == 1


def test_a_listener_for_both_families_and_one_for_ipv6_alone(start: Start, target: Target) -> None:
    both = start("-l", "[::]:0", "-r", target.address)
    port = both.address[1]
    for host in ("127.0.0.1", "::1"):
        with flow((host, port), target) as (client, server):
            talk(client, server)
    alone = start("-l", "[::]:0", "-r", target.address, "-6")
    port = alone.address[1]
    with flow(("::1", port), target) as (client, server):
        talk(client, server)
    with pytest.raises(ConnectionRefusedError):
        connect(("127.0.0.1", port))
    # So somebody else may have the port for IPv4.
    beside_it = start("-l", f"0.0.0.0:{port}", "-r", target.address)
    with flow(("127.0.0.1", port), target) as (client, server):
        talk(client, server)
    assert len(beside_it.wait_ended(1)) == 1


def test_an_ipv6_client_and_an_ipv4_target_and_the_reverse(start: Start, target: Target) -> None:
    with Target("::1") as target6:
        relay = start(
            *("-l", "[::1]:0", "-r", target.address, "-l", "127.0.0.1:0", "-r", target6.address)
        )
        for address, served in zip(relay.addresses(), (target, target6), strict=True):
            with flow(address, served) as (client, server):
                talk(client, server)


@pytest.mark.root
def test_multipath_tcp_on_both_sides(start: Start, wire: Wire) -> None:
    """Spoken with a client and a target that do, with everything a flow may do."""

    def capable(counter: str) -> int:
        rows = wire.relay.run("cat", "/proc/net/netstat").splitlines()
        names, values = (row.split() for row in rows if row.startswith("MPTcpExt:"))
        return int(dict(zip(names[1:], values[1:], strict=True))[counter])

    words = ("-m", "-l", f"{wire.NEAR}:80", "-r", f"{wire.TARGET}:80")
    start(*words, before=wire.relay.before)
    with ExitStack() as stack:
        with wire.target.entered():
            target = stack.enter_context(multipath())
            target.bind((wire.TARGET, 80))
            target.listen()
        pairs = []
        for _ in range(2):
            with wire.client.entered():
                client = stack.enter_context(multipath())
                client.connect((wire.NEAR, 80))
            server = stack.enter_context(target.accept()[0])
            server.settimeout(PATIENCE)
            pairs.append((client, server))
        assert capable("MPCapableSYNRX") == 2
        assert capable("MPCapableSYNACKRX") == 2
        client, server = pairs[0]
        stream = pattern(8_000_000)
        for sender, receiver in (pairs[0], pairs[0][::-1]):
            sending = beside(sender.sendall, stream)
            assert hear(receiver, len(stream)) == stream
            sending.result(PATIENCE)
        end_writing(client)
        assert read_to_end(server) == b""
        server.sendall(b"the rest")
        server.close()
        assert read_to_end(client) == b"the rest"
        client, server = pairs[1]
        talk(client, server)
        reset(server)
        assert is_reset(client)
        # Plain clients are served all the same.
        with wire.client.entered():
            plain = stack.enter_context(connect((wire.NEAR, 80)))
        server = stack.enter_context(target.accept()[0])
        talk(plain, server)


@contextmanager
def multipath() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as sock:
        sock.settimeout(PATIENCE)
        yield sock
