"""The relay on the real engine, with real sockets."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from qanat.config.models import Endpoint, Network
from qanat.errors import BindError, ConfigError, RelayStateError
from qanat.observe.flow import Flow
from qanat.relay.notice import Notice
from qanat.relay.relay import Relay
from tests.support.echo import echo_server, udp_echo_server
from tests.support.garbage import collect_what_others_left
from tests.support.wait import wait_until, wait_until_async


@pytest.fixture
def target() -> Iterator[str]:
    with echo_server() as port:
        yield f"127.0.0.1:{port}"


@contextmanager
def running(*endpoints: Endpoint, **other: Any) -> Iterator[Relay]:
    relay = Relay(endpoints, **other)
    relay.start()
    try:
        yield relay
    finally:
        relay.stop()


def endpoint(remote: str, listen: str = "127.0.0.1:0", **other: Any) -> Endpoint:
    return Endpoint(listen=listen, remote=remote, **other)


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def says(client: socket.socket, text: bytes = b"hello") -> bytes:
    """What comes back for ``text``; empty at the end, also if that is a reset."""
    try:
        client.sendall(text)
        return client.recv(len(text))
    except ConnectionError:
        return b""


def is_open(address: str) -> bool:
    try:
        connect(address).close()
    except (ConnectionRefusedError, ConnectionResetError):
        # Reset: it closed while this was the next to be taken.
        return False
    return True


def test_bytes_go_there_and_back(target: str) -> None:
    with running(endpoint(target)) as relay, connect(relay.endpoints[0].address) as client:
        assert says(client) == b"hello"
        (flow,) = relay.flows()
        assert (flow.target, flow.peer, flow.state) == (target, target, "open")
        assert (flow.bytes_up, flow.bytes_down) == (5, 5)
        assert flow.listener == relay.endpoints[0].address
        host, port = client.getsockname()
        assert flow.client == f"{host}:{port}"
        assert relay.stats().endpoint("127.0.0.1:0").tcp.open == 1


def test_after_stopping_the_port_is_closed_and_flows_are_cut(target: str) -> None:
    ended: list[Flow] = []
    relay = Relay([endpoint(target)])
    relay.on_ended(ended.append)
    relay.start()
    address = relay.endpoints[0].address
    with connect(address) as client:
        assert says(client) == b"hello"
        assert relay.stop() == 1
        assert says(client) == b""
    assert not is_open(address)
    assert [(flow.reason, flow.bytes_up) for flow in ended] == [("shutdown", 5)]
    assert "qanat-events" not in [thread.name for thread in threading.enumerate()]


def test_every_record_is_handed_out_before_stop_returns(target: str) -> None:
    ended: list[Flow] = []
    with running(endpoint(target)) as other, running(endpoint(target)) as relay:
        relay.on_ended(ended.append)
        clients = [connect(relay.endpoints[0].address) for _ in range(50)]
        for client in clients:
            assert says(client) == b"hello"
        for client in clients[::2]:
            client.close()
        relay.stop()
        assert len(ended) == 50
        assert {flow.reason for flow in ended} <= {"client_closed", "shutdown"}
        assert other.running
        for client in clients:
            client.close()


def test_a_drain_waits_for_flows_and_takes_no_new_ones(target: str) -> None:
    relay = Relay([endpoint(target)])
    relay.start()
    address = relay.endpoints[0].address
    cut: list[int] = []
    with connect(address) as client:
        assert says(client) == b"hello"
        stopping = threading.Thread(target=lambda: cut.append(relay.stop(drain=20)))
        stopping.start()
        wait_until(lambda: not is_open(address))
        assert says(client, b"still") == b"still"
    stopping.join(5)
    assert cut == [0]


def test_a_drain_cuts_when_its_time_is_over(target: str) -> None:
    ended: list[Flow] = []
    relay = Relay([endpoint(target)])
    relay.on_ended(ended.append)
    relay.start()
    with connect(relay.endpoints[0].address) as client:
        assert says(client) == b"hello"
        began = time.monotonic()
        assert relay.stop(drain=0.3) == 1
        assert 0.25 < time.monotonic() - began < 3
    assert [flow.reason for flow in ended] == ["drained"]


def test_a_second_stop_cuts_at_once(target: str) -> None:
    relay = Relay([endpoint(target)])
    relay.start()
    with connect(relay.endpoints[0].address) as client:
        assert says(client) == b"hello"
        patient = threading.Thread(target=relay.stop, args=(60,))
        patient.start()
        wait_until(lambda: "draining" in repr(relay))
        relay.stop()
        patient.join(5)
        assert not patient.is_alive()


def test_an_address_that_is_taken_leaves_nothing_half_started(target: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        with socket.create_server(("127.0.0.1", 0)) as free:
            first = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(BindError) as caught:
            Relay([endpoint(target, first), endpoint(target, busy, name="web")]).start()
        assert (caught.value.endpoint, caught.value.address) == ("web", busy)
        assert caught.value.errno == errno.EADDRINUSE
        assert "Address already in use" in str(caught.value)
        assert not is_open(first)


def test_two_relays_of_one_process_can_not_have_one_address(target: str) -> None:
    with running(endpoint(target)) as relay:
        with pytest.raises(BindError):
            Relay([endpoint(target, relay.endpoints[0].address)]).start()
        with connect(relay.endpoints[0].address) as client:
            assert says(client) == b"hello"


def test_a_device_that_does_not_exist_is_named(target: str) -> None:
    with pytest.raises((BindError, ConfigError), match="nodev0"):
        Relay([endpoint(target, "[fe80::1%nodev0]:0")]).start()
    with pytest.raises(BindError, match="No such device"):
        Relay([endpoint(target, listen_interface="nodev0")]).start()


def test_one_port_serves_both_protocols(target: str) -> None:
    with running(endpoint(target, network=Network(use_udp=True))) as relay:
        (both,) = relay.endpoints
        assert both.tcp_address == both.udp_address == both.address


@contextmanager
def datagrams(address: str | None) -> Iterator[socket.socket]:
    assert address is not None
    host, _, port = address.rpartition(":")
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((host, int(port)))
        yield client


def test_datagrams_go_there_and_back() -> None:
    ended: list[Flow] = []
    udp = Network(use_udp=True, no_tcp=True)
    with udp_echo_server() as port:
        relay = Relay([endpoint(f"127.0.0.1:{port}", network=udp)])
        relay.on_ended(ended.append)
        relay.start()
        with datagrams(relay.endpoints[0].udp_address) as client:
            assert says(client) == b"hello"
            (flow,) = relay.flows()
            assert (flow.protocol, flow.packets_up, flow.packets_down) == ("udp", 1, 1)
            assert relay.stats().endpoint("127.0.0.1:0").udp.open == 1
        # Nothing tells when an association is over, so that nothing is waited for.
        began = time.monotonic()
        assert relay.stop(drain=20) == 1
        assert time.monotonic() - began < 10
    assert [(flow.id, flow.reason) for flow in ended] == [(flow.id, "shutdown")]


def test_an_association_can_be_killed() -> None:
    udp = Network(use_udp=True)
    with (
        udp_echo_server() as port,
        running(endpoint(f"127.0.0.1:{port}", network=udp)) as relay,
        datagrams(relay.endpoints[0].udp_address) as client,
    ):
        assert says(client) == b"hello"
        (flow,) = relay.flows()
        assert relay.kill(flow.id)
        assert relay.flows() == []
        assert says(client) == b"hello"
        (again,) = relay.flows()
        assert again.id != flow.id


def test_a_changed_target_serves_new_flows_and_leaves_the_old(target: str) -> None:
    with echo_server(b"other") as port, running(endpoint(target)) as relay:
        address = relay.endpoints[0].address
        with connect(address) as old:
            assert says(old) == b"hello"
            report = relay.apply_sync([endpoint(f"127.0.0.1:{port}")])
            assert report.changed == ("127.0.0.1:0",)
            assert relay.endpoints[0].address == address
            with connect(address) as new:
                assert new.recv(5) == b"other"
                assert says(old, b"still") == b"still"


def test_flows_of_what_is_removed_live_on_or_drain(target: str) -> None:
    kept = endpoint(target, name="kept")
    with running(kept, endpoint(target, name="gone"), endpoint(target, name="cut")) as relay:
        addresses = {entry.id: entry.address for entry in relay.endpoints}
        clients = {id: connect(address) for id, address in addresses.items()}
        assert all(says(client) == b"hello" for client in clients.values())
        relay.apply_sync([kept, endpoint(target, name="cut")])
        assert not is_open(addresses["gone"])
        relay.apply_sync([kept], drain=0.05)
        assert not is_open(addresses["cut"])
        with suppress(ConnectionResetError):
            assert clients["cut"].recv(1) == b""
        assert says(clients["gone"], b"alive") == b"alive"
        assert says(clients["kept"], b"alive") == b"alive"
        assert is_open(addresses["kept"])
        for client in clients.values():
            client.close()


def test_records_bear_the_id_that_the_flow_began_with(target: str) -> None:
    ended: list[Flow] = []
    with running(endpoint(target, name="before")) as relay:
        relay.on_ended(ended.append)
        port = relay.endpoints[0].address
        with connect(port) as old:
            assert says(old) == b"hello"
            fixed = endpoint(target, port, name="fixed")
            assert relay.apply_sync([fixed]).added == ("fixed",)
            report = relay.apply_sync([endpoint(target, port, name="renamed")])
            assert report.changed == ("renamed",)
            with connect(port) as new:
                assert says(new) == b"hello"
                assert {flow.endpoint for flow in relay.flows()} == {"before", "renamed"}
            wait_until(lambda: ended)
            assert ended[0].endpoint == "renamed"
            assert relay.stats().endpoint("renamed").tcp.total == 1


def test_an_endpoint_can_take_up_another_protocol_without_closing_its_port(target: str) -> None:
    with running(endpoint(target)) as relay:
        address = relay.endpoints[0].address
        relay.apply_sync([endpoint(target, address)])
        with connect(address) as client:
            assert says(client) == b"hello"
            udp = Network(use_udp=True)
            assert relay.apply_sync([endpoint(target, address, network=udp)]).rebound == (address,)
            assert says(client) == b"hello"
        assert relay.endpoints[0].udp_address == address
        for _ in range(20):
            with connect(address) as client:
                assert says(client) == b"hello"


def test_a_change_that_can_not_be_bound_changes_nothing(target: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        running(endpoint(target, name="a"), endpoint(target, name="b")) as relay,
    ):
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        before = relay.endpoints
        with connect(before[0].address) as client:
            assert says(client) == b"hello"
            with pytest.raises(BindError) as caught:
                relay.apply_sync([endpoint("127.0.0.1:1", name="a"), endpoint(target, busy)])
            assert caught.value.endpoint == busy
            assert relay.endpoints == before
            assert says(client) == b"hello"
        for entry in before:
            with connect(entry.address) as client:
                assert says(client) == b"hello"


def test_a_flow_can_be_killed(target: str) -> None:
    ended: list[Flow] = []
    with running(endpoint(target)) as relay, connect(relay.endpoints[0].address) as client:
        relay.on_ended(ended.append)
        assert says(client) == b"hello"
        (flow,) = relay.flows()
        assert relay.kill(flow.id)
        assert says(client) == b""
        wait_until(lambda: ended)
        assert (ended[0].id, ended[0].reason) == (flow.id, "killed")
        assert not relay.kill(flow.id)


def test_an_unreachable_target_is_noticed(target: str) -> None:
    notices: list[Notice] = []
    ended: list[Flow] = []
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
    with running(endpoint(nobody)) as relay:
        relay.on_notice(notices.append)
        relay.on_ended(ended.append)
        with suppress(ConnectionResetError), connect(relay.endpoints[0].address) as client:
            assert says(client) == b""
        wait_until(lambda: ended and notices)
    assert (notices[0].endpoint, notices[0].code) == ("127.0.0.1:0", "connect_refused")
    assert ended[0].reason == "connect_refused"
    assert ended[0].connect is None
    assert ended[0].detail
    assert "refused" in ended[0].detail


def test_inherited_sockets_are_used(target: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        relay = Relay([endpoint(target, address)])
        relay.start(inherited={address: listening.detach()})
    assert relay.endpoints[0].address == address
    with connect(address) as client:
        assert says(client) == b"hello"
    relay.stop()
    assert not is_open(address)


def test_an_inherited_socket_that_nobody_uses_is_told(
    target: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        relay = Relay([endpoint(target)])
        relay.start(inherited={"elsewhere": listening.fileno()})
        relay.stop()
    assert f"no endpoint uses: [{listening.fileno()}]" in caplog.text or "uses" in caplog.text


def test_dropping_a_running_relay_closes_its_port_and_warns(target: str) -> None:
    relay = Relay([endpoint(target)])
    relay.start()
    address = relay.endpoints[0].address
    assert is_open(address)
    collect_what_others_left()
    with pytest.warns(ResourceWarning, match="was not stopped"):
        del relay
        gc.collect()
    assert not is_open(address)


def test_starting_and_stopping_leaves_no_descriptor_and_no_thread(target: str) -> None:
    from pathlib import Path

    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    with running(endpoint(target)):
        pass
    before = held()
    for _ in range(10):
        with running(endpoint(target), endpoint(target)) as relay:
            relay.apply_sync([endpoint(target)])
    assert held() == before


def test_start_stop_and_apply_from_many_threads_leave_it_in_one_piece(target: str) -> None:
    relay = Relay([endpoint(target)])
    failures: list[BaseException] = []

    def use(number: int) -> None:
        try:
            for turn in range(15):
                try:
                    if (number + turn) % 3 == 0:
                        relay.start()
                    elif (number + turn) % 3 == 1:
                        relay.apply_sync([endpoint(target, name=f"{number}-{turn}")])
                    else:
                        relay.stop()
                except RelayStateError:
                    pass
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    relay.stop()
    assert failures == []
    relay.start()
    with connect(relay.endpoints[0].address) as client:
        assert says(client) == b"hello"
    relay.stop()


async def use_as_in_the_readme(target: str) -> None:
    async with Relay([endpoint(target)]) as relay:
        ended = relay.ended()
        host, _, port = relay.endpoints[0].address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await writer.wait_closed()
        flow = await anext(ended)
        assert (flow.bytes_up, flow.reason) == (5, "client_closed")
        report = await relay.apply([endpoint(target), endpoint(target, name="second")])
        assert (report.added, report.untouched) == (("second",), ("127.0.0.1:0",))
        assert len(relay.endpoints) == 2
        await wait_until_async(lambda: relay.open_flows() == 0)


def test_on_asyncio(target: str) -> None:
    asyncio.run(use_as_in_the_readme(target), debug=True)


def test_on_uvloop(target: str) -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(use_as_in_the_readme(target))


def free_ports(host: str, count: int) -> list[int]:
    """Ports that nobody has, for either protocol; on any machine somebody has one of so many."""
    found: list[int] = []
    for port in range(9000, 30_000):
        try:
            with socket.create_server((host, port)), socket.socket(type=socket.SOCK_DGRAM) as udp:
                udp.bind((host, port))
        except OSError:
            continue
        found.append(port)
        if len(found) == count:
            break
    return found


def test_two_thousand_endpoints_start_change_and_stop_quickly(target: str) -> None:
    network = Network(use_udp=True)
    listens = [f"127.77.1.1:{port}" for port in free_ports("127.77.1.1", 2000)]
    many = [endpoint(target, listen, network=network) for listen in listens]
    relay = Relay(many)
    began = time.monotonic()
    relay.start()
    changed = [endpoint("127.0.0.1:9", listens[0], network=network), *many[1:]]
    assert len(relay.apply_sync(changed).untouched) == 1999
    relay.stop()
    # A second on a free machine with a debug build; anything quadratic takes minutes.
    assert time.monotonic() - began < 15
