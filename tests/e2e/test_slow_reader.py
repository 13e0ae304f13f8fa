"""Fast senders against readers that stall: the relay holds a bounded amount for each, and the
others don't notice."""

from __future__ import annotations

import time

import pytest

from tests.e2e.conftest import Start
from tests.support.peers import (
    PATIENCE,
    Target,
    beside,
    connect,
    flow,
    hear,
    pattern,
    send_until_full,
    talk,
)
from tests.support.wait import wait_until

KIB = 1024
MIB = 1024 * KIB


@pytest.mark.parametrize("sender", ["client", "target"])
def test_one_stalled_reader_stops_its_sender(start: Start, target: Target, sender: str) -> None:
    """The sender is held back by what the kernel's buffers and one pipe take, and when the reader
    wakes up not a byte is missing."""
    relay = start("-l", "127.0.0.1:0", "-r", target.address)
    with flow(relay.address, target) as (client, server):
        sending, reading = (client, server) if sender == "client" else (server, client)
        memory = relay.memory
        piece = pattern(256 * KIB)
        sent = send_until_full(sending, piece)
        assert relay.memory - memory < 2 * MIB
        assert sum(worker["pipe_bytes"] for worker in relay.stats()["workers"]) <= 2 * MIB
        cpu = relay.cpu_seconds
        time.sleep(0.5)
        assert relay.cpu_seconds - cpu < 0.2, "a stalled flow costs no time"
        heard = hear(reading, sent)
        assert heard == (piece * (sent // len(piece) + 1))[:sent]
        talk(client, server)


def test_many_stalled_readers_cost_little_each_and_nothing_to_the_others(
    start: Start, target: Target
) -> None:
    flows = 300
    relay = start("-l", "127.0.0.1:0", "-r", target.address)
    with flow(relay.address, target) as (client, server):
        talk(client, server)
        memory = relay.memory
        clients, servers = [], []
        try:
            for _ in range(flows):
                clients.append(connect(relay.address))
                servers.append(target.accept())
                servers[-1].setblocking(False)
            piece = pattern(256 * KIB)
            stalled = 0
            moved = -1
            # All are stalled when a round moves nothing any more.
            while moved:
                moved = 0
                for sock in servers:
                    try:
                        moved += sock.send(piece)
                    except BlockingIOError:
                        continue
                stalled += moved
            assert stalled > flows * 100 * KIB
            pipes = sum(worker["pipe_bytes"] for worker in relay.stats()["workers"])
            assert relay.memory - memory < flows * 80 * KIB
            assert pipes < flows * 1100 * KIB
            for _ in range(50):
                talk(client, server, pattern(5_000))
        finally:
            for sock in clients + servers:
                sock.close()
        wait_until(lambda: len(relay.flows()) == 1)
        assert relay.pipes_lent() == 0
        talk(client, server)


def test_a_reader_of_single_bytes_gets_all(start: Start, target: Target) -> None:
    relay = start("-l", "127.0.0.1:0", "-r", target.address)
    stream = pattern(3_000_000)
    with flow(relay.address, target) as (client, server):
        sending = beside(server.sendall, stream)
        heard = b"".join(hear(client, 1) for _ in range(2_000))
        heard += hear(client, len(stream) - len(heard))
        assert heard == stream
        sending.result(PATIENCE)
