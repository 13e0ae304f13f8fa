"""A reset of one side reaches the other as a reset, in every phase of a flow's life."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Start
from tests.support.peers import (
    PATIENCE,
    FullTarget,
    Target,
    beside,
    connect,
    end_writing,
    flow,
    hear,
    is_gone,
    is_reset,
    pattern,
    read_to_end,
    reset,
    talk,
    wait_unread,
)
from tests.support.relay_process import RelayProcess
from tests.support.wait import wait_until


@pytest.fixture
def relay(start: Start, target: Target) -> Iterator[RelayProcess]:
    """A relay that has the descriptors at the end that it had at the beginning."""
    relay = start("-l", "127.0.0.1:0", "-r", target.address)
    # The first flow may bring something that stays, as a pipe for later ones.
    with flow(relay.address, target) as (client, server):
        talk(client, server)
    wait_until(lambda: relay.flows() == [])
    before = relay.descriptors
    yield relay
    wait_until(lambda: relay.flows() == [])
    pipes = 2 * sum(worker["pipes_idle"] for worker in relay.stats()["workers"])
    wait_until(lambda: relay.descriptors <= before + pipes, what="descriptors are given back")
    assert relay.pipes_lent() == 0


def test_while_the_name_is_looked_up(start: Start) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        words = ("--dns-servers", server, "--tcp-timeout", "60")
        relay = start("-l", "127.0.0.1:0", "-r", "name.test:80", *words)
        client = connect(relay.address)
        relay.wait_state("resolving")
        reset(client)
        assert relay.end_of_flow(5)["reason"] == "client_reset"


def test_while_connecting(start: Start) -> None:
    with FullTarget() as full:
        relay = start("-l", "127.0.0.1:0", "-r", full.address, "--tcp-timeout", "60")
        before = relay.descriptors
        client = connect(relay.address)
        client.sendall(b"too early")
        relay.wait_state("connecting")
        reset(client)
        assert relay.end_of_flow(5)["reason"] == "client_reset"
        wait_until(lambda: relay.descriptors <= before, what="descriptors are given back")


@pytest.mark.parametrize("who", ["client", "target"])
def test_before_the_first_byte(relay: RelayProcess, target: Target, who: str) -> None:
    with flow(relay.address, target) as (client, server):
        relay.wait_state("open")
        one, other = (client, server) if who == "client" else (server, client)
        reset(one)
        assert is_reset(other)
    assert relay.wait_ended(2)[-1]["reason"] == f"{who}_reset"


@pytest.mark.parametrize("who", ["client", "target"])
def test_between_two_messages(relay: RelayProcess, target: Target, who: str) -> None:
    with flow(relay.address, target) as (client, server):
        talk(client, server)
        one, other = (client, server) if who == "client" else (server, client)
        reset(one)
        assert is_reset(other)
    assert relay.wait_ended(2)[-1]["reason"] == f"{who}_reset"


@pytest.mark.parametrize("who", ["client", "target"])
@pytest.mark.parametrize("sender", ["client", "target"])
def test_in_full_flow(relay: RelayProcess, target: Target, who: str, sender: str) -> None:
    """A reset of the sender, and one of the receiver, while a pipe is full of bytes."""
    with flow(relay.address, target) as (client, server):
        one, other = (client, server) if who == "client" else (server, client)
        sending, receiving = (client, server) if sender == "client" else (server, client)
        pouring = beside(sending.sendall, pattern(200_000_000 // 8) * 8)
        assert len(hear(receiving, 5_000_000)) == 5_000_000
        if one is sending:
            # In a thread of its own is a call on the socket: shut it first.
            one.shutdown(socket.SHUT_RD)
        reset(one)
        if other is sending:
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                pouring.result(PATIENCE)
        else:
            with pytest.raises(ConnectionResetError):
                read_to_end(other)
    assert relay.wait_ended(2)[-1]["reason"] == f"{who}_reset"


@pytest.mark.parametrize("who", ["client", "target"])
def test_what_was_said_before_arrives(relay: RelayProcess, target: Target, who: str) -> None:
    """As far as the relay had it: bytes, and then the reset."""
    with flow(relay.address, target) as (client, server):
        one, other = (client, server) if who == "client" else (server, client)
        one.sendall(b"last words")
        wait_unread(other)
        reset(one)
        assert hear(other, 10) == b"last words"
        assert is_reset(other)


@pytest.mark.parametrize("who", ["client", "target"])
def test_of_the_side_that_still_speaks_after_the_other_ended(
    relay: RelayProcess, target: Target, who: str
) -> None:
    """One has ended and waits; the one that should answer resets."""
    with flow(relay.address, target) as (client, server):
        one, other = (client, server) if who == "client" else (server, client)
        end_writing(other)
        assert one.recv(1) == b""
        relay.wait_state("half_closed")
        reset(one)
        assert is_reset(other)
    assert relay.wait_ended(2)[-1]["reason"] == f"{who}_reset"


def test_of_a_client_that_has_ended_and_was_to_hear_the_answer(
    relay: RelayProcess, target: Target
) -> None:
    """The target must not work on for nobody."""
    with flow(relay.address, target) as (client, server):
        end_writing(client)
        assert server.recv(1) == b""
        relay.wait_state("half_closed")
        reset(client)
        assert is_gone(server)
    assert relay.wait_ended(2, 5)[-1]["reason"] == "client_reset"


@pytest.mark.parametrize("who", ["client", "target"])
def test_while_the_other_side_reads_nothing(start: Start, target: Target, who: str) -> None:
    """The relay holds bytes that can't be delivered, and must not hold them for ever."""
    relay = start("-l", "127.0.0.1:0", "-r", target.address, "--linger", "1")
    with flow(relay.address, target) as (client, server):
        one, other = (client, server) if who == "client" else (server, client)
        one.settimeout(0.3)
        with pytest.raises(TimeoutError):
            one.sendall(pattern(60_000_000))
        reset(one)
        assert relay.end_of_flow(10)["reason"] == f"{who}_reset"
        with pytest.raises(ConnectionResetError):
            read_to_end(other)
    assert relay.pipes_lent() == 0


@pytest.mark.parametrize("who", ["client", "target"])
def test_while_the_other_side_reads_slowly(relay: RelayProcess, target: Target, who: str) -> None:
    """What the relay had taken from the one that is gone is still delivered."""
    with flow(relay.address, target) as (client, server):
        one, other = (client, server) if who == "client" else (server, client)
        one.settimeout(0.3)
        with pytest.raises(TimeoutError):
            one.sendall(pattern(60_000_000))
        moved = relay.flows()[0]["bytes_up" if who == "client" else "bytes_down"]
        reset(one)
        heard = 0
        with pytest.raises(ConnectionResetError):
            while piece := other.recv(1 << 20):
                heard += len(piece)
        assert heard >= moved
