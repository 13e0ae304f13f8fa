"""An end that one side sends reaches the other side, and what flows the other way goes on."""

from __future__ import annotations

import time

from tests.e2e.conftest import Start
from tests.support.peers import (
    PATIENCE,
    Target,
    beside,
    end_writing,
    flow,
    hear,
    is_gone,
    is_reset,
    pattern,
    read_to_end,
    talk,
    wait_delivered,
)
from tests.support.wait import wait_until

MUCH = 24_000_000


def test_a_client_that_has_finished_still_hears_everything(start: Start, target: Target) -> None:
    """The target answers long after the client's end, with more than any buffer holds."""
    relay = start("-l", "127.0.0.1:0", "-r", target.address)
    answer = pattern(MUCH)
    with flow(relay.address, target) as (client, server):
        client.sendall(b"question")
        end_writing(client)
        assert read_to_end(server) == b"question"
        relay.wait_state("half_closed")
        sending = beside(server.sendall, answer)
        assert hear(client, MUCH) == answer
        sending.result(PATIENCE)
        end_writing(server)
        assert client.recv(1) == b""
    assert relay.end_of_flow()["reason"] == "client_closed"
    assert relay.end_of_flow()["bytes_down"] == MUCH


def test_a_target_that_has_finished_still_hears_everything(start: Start, target: Target) -> None:
    relay = start("-l", "127.0.0.1:0", "-r", target.address)
    said = pattern(MUCH)
    with flow(relay.address, target) as (client, server):
        server.sendall(b"banner")
        end_writing(server)
        assert read_to_end(client) == b"banner"
        relay.wait_state("half_closed")
        sending = beside(client.sendall, said)
        assert hear(server, MUCH) == said
        sending.result(PATIENCE)
        end_writing(client)
        assert server.recv(1) == b""
    assert relay.end_of_flow()["reason"] == "target_closed"
    assert relay.end_of_flow()["bytes_up"] == MUCH


def test_an_end_in_the_middle_of_a_stream_the_other_way_disturbs_nothing(
    start: Start, target: Target
) -> None:
    """The end comes while the other direction is in full flow, through a pipe."""
    relay = start("-l", "127.0.0.1:0", "-r", target.address)
    for ends_early in ("client", "target"):
        with flow(relay.address, target) as (client, server):
            early, late = (client, server) if ends_early == "client" else (server, client)
            stream = pattern(MUCH)
            sending = beside(late.sendall, stream)
            first = hear(early, MUCH // 3)
            early.sendall(b"the last word")
            end_writing(early)
            assert read_to_end(late) == b"the last word"
            assert first + hear(early, MUCH - len(first)) == stream
            sending.result(PATIENCE)
            end_writing(late)
            assert early.recv(1) == b""
    assert [end["reason"] for end in relay.wait_ended(2)] == ["client_closed", "target_closed"]


def test_an_answer_is_whole_when_the_target_closes_while_the_client_still_sends(
    start: Start, target: Target
) -> None:
    """A server that refuses an upload: it answers and closes while megabytes are under way.

    What still comes meets a closed socket, which the kernel answers with a reset. That reset must
    not overtake the answer, and the client may finish its upload before it reads.
    """
    relay = start("-l", "127.0.0.1:0", "-r", target.address)
    answer = pattern(200_000)
    for upload in (b"more", pattern(8_000_000)):
        with flow(relay.address, target) as (client, server):
            client.sendall(b"upload")
            assert hear(server, 6) == b"upload"
            server.sendall(answer)
            # What its system still has to send, a closing target loses by itself.
            wait_delivered(server)
            server.close()
            for _ in range(3):
                client.sendall(upload)
            end_writing(client)
            assert read_to_end(client) == answer
    wait_until(lambda: relay.flows() == [])


def test_answers_are_whole_that_wait_in_buffers_when_both_ends_are_known(
    start: Start, target: Target
) -> None:
    relay = start("-l", "127.0.0.1:0", "-r", target.address)
    for number, size in enumerate((1, 5_000, 300_000, 2_000_000), 1):
        answer = pattern(size, size)
        with flow(relay.address, target) as (client, server):
            client.sendall(b"?")
            end_writing(client)
            assert read_to_end(server) == b"?"
            sending = beside(server.sendall, answer)
            if size <= 300_000:
                sending.result(PATIENCE)
                server.close()
            assert hear(client, size) == answer
            sending.result(PATIENCE)
            server.close()
            assert client.recv(1) == b""
        assert relay.wait_ended(number)[-1]["bytes_down"] == size


def test_a_half_closed_flow_lives_while_something_moves_and_not_much_longer(
    start: Start, target: Target
) -> None:
    relay = start("-l", "127.0.0.1:0", "-r", target.address, "--linger", "0.6")
    with flow(relay.address, target) as (client, server):
        end_writing(client)
        assert server.recv(1) == b""
        # Longer in all than the limit, in steps that are shorter.
        for _ in range(8):
            server.sendall(b"tick")
            assert hear(client, 4) == b"tick"
            time.sleep(0.15)
        began = time.monotonic()
        assert is_reset(client)
        assert time.monotonic() - began < 5
        assert is_gone(server)
    assert relay.end_of_flow()["reason"] == "linger_timeout"


def test_an_idle_limit_does_not_count_while_something_moves(start: Start, target: Target) -> None:
    relay = start("-l", "127.0.0.1:0", "-r", target.address, "--idle-timeout", "0.6")
    with flow(relay.address, target) as (client, server):
        for sender, receiver in [(client, server), (server, client)] * 4:
            sender.sendall(b"tick")
            assert hear(receiver, 4) == b"tick"
            time.sleep(0.15)
        talk(client, server)
        assert is_reset(client)
        assert is_reset(server)
    assert relay.end_of_flow()["reason"] == "idle_timeout"
