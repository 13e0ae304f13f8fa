"""Targets that are down, far away, slow, or die: what the client sees, and when."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.conftest import Start
from tests.support.netns import Wire
from tests.support.peers import (
    PATIENCE,
    FullTarget,
    Target,
    beside,
    connect,
    end_writing,
    flow,
    hear,
    is_reset,
    pattern,
    read_to_end,
    resets,
    talk,
)
from tests.support.wait import wait_until


def test_a_target_that_is_down_resets_the_client_and_may_come_up(start: Start) -> None:
    with Target() as gone:
        port, address = gone.port, gone.address
    relay = start("-l", "127.0.0.1:0", "-r", address)
    assert resets(relay.address)
    assert relay.end_of_flow()["reason"] == "connect_refused"
    assert relay.end_of_flow()["connect"] is None
    with Target(port=port) as target, flow(relay.address, target) as (client, server):
        talk(client, server)


@pytest.mark.root
def test_a_target_that_nobody_answers_for(start: Start, wire: Wire) -> None:
    wire.swallow("10.72.0.99")
    words = ("-l", f"{wire.NEAR}:80", "-r", "10.72.0.99:80", "--tcp-timeout", "1")
    relay = start(*words, before=wire.relay.before)
    began = time.monotonic()
    with wire.client.entered():
        assert resets((wire.NEAR, 80))
    assert 0.9 < time.monotonic() - began < 4
    record = relay.end_of_flow()
    assert record["reason"] == "connect_timeout"
    assert 0.9 < record["duration"] < 3


@pytest.mark.root
def test_a_target_without_a_way_to_it(start: Start, wire: Wire) -> None:
    wire.relay.ip("route add unreachable 10.99.0.0/24")
    relay = start("-l", f"{wire.NEAR}:80", "-r", "10.99.0.1:80", before=wire.relay.before)
    with wire.client.entered():
        assert resets((wire.NEAR, 80))
    assert relay.end_of_flow()["reason"] == "connect_unreachable"


def test_a_target_that_is_slow_to_accept(start: Start) -> None:
    """It takes the connection late but in time, and finds all that was said in the meantime."""
    said = pattern(1_000_000)
    with FullTarget() as target:
        relay = start("-l", "127.0.0.1:0", "-r", target.address, "--tcp-timeout", "12")
        with connect(relay.address) as client:
            sending = beside(client.sendall, said)
            relay.wait_state("connecting")
            target.relieve()
            with target.accept() as server:
                assert hear(server, len(said)) == said
                sending.result(PATIENCE)
                talk(client, server)
        record = relay.end_of_flow()
        assert 0.2 < record["connect"] < 12


def test_a_target_that_never_accepts_is_given_up(start: Start) -> None:
    with FullTarget() as target:
        relay = start("-l", "127.0.0.1:0", "-r", target.address, "--tcp-timeout", "1")
        assert resets(relay.address)
        assert relay.end_of_flow()["reason"] == "connect_timeout"


def test_a_client_that_ends_before_the_target_is_there_is_served(start: Start) -> None:
    """As `echo question | nc`: the end is known long before there is anybody to tell it to."""
    with FullTarget() as target:
        relay = start("-l", "127.0.0.1:0", "-r", target.address, "--tcp-timeout", "12")
        with connect(relay.address) as client:
            client.sendall(b"question")
            end_writing(client)
            relay.wait_state("connecting")
            target.relieve()
            with target.accept() as server:
                assert read_to_end(server) == b"question"
                server.sendall(b"answer")
            assert read_to_end(client) == b"answer"


FLOODING = """
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def serve(sock):
    threading.Thread(target=lambda: [sock.sendall(bytes(1 << 16)) for _ in iter(int, 1)]).start()
    while sock.recv(1 << 16):
        pass
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],)).start()
"""


def test_a_target_killed_in_full_flow_ends_its_flows_and_leaves_nothing(start: Start) -> None:
    target = subprocess.Popen([sys.executable, "-c", FLOODING], stdout=subprocess.PIPE, text=True)
    assert target.stdout is not None
    try:
        relay = start("-l", "127.0.0.1:0", "-r", f"127.0.0.1:{int(target.stdout.readline())}")
        before = relay.descriptors
        clients = [connect(relay.address) for _ in range(8)]
        for client in clients:
            client.sendall(b"?")
            assert len(hear(client, 3_000_000)) == 3_000_000
        os.kill(target.pid, signal.SIGKILL)
        for client in clients:
            with client:
                # A reset, or an end where the kernel of the target had nothing unread.
                try:
                    read_to_end(client)
                except ConnectionResetError:
                    continue
    finally:
        target.kill()
        target.wait()
        target.stdout.close()
    ends = {record["reason"] for record in relay.wait_ended(8)}
    assert ends <= {"target_reset", "target_closed"}
    assert relay.flows() == []
    assert relay.pipes_lent() == 0
    pipes = 2 * sum(worker["pipes_idle"] for worker in relay.stats()["workers"])
    wait_until(lambda: relay.descriptors <= before + pipes, what="descriptors are given back")
    assert resets(relay.address)


@pytest.mark.root
@pytest.mark.parametrize("lost", ["client", "target"])
def test_a_peer_that_vanishes_without_a_word_is_noticed_by_keepalive(
    start: Start, wire: Wire, lost: str
) -> None:
    words = ("--tcp-keepalive", "1", "--tcp-keepalive-probe", "2")
    address = f"{wire.TARGET}:80"
    relay = start("-l", f"{wire.NEAR}:80", "-r", address, *words, before=wire.relay.before)
    with wire.target.entered():
        target = Target(wire.TARGET, port=80)
    with target, wire.client.entered(), flow((wire.NEAR, 80), target) as (client, server):
        talk(client, server)
        # Probes of the target's leg begin a second after it was connected.
        other, lost_end = (server, wire.client) if lost == "client" else (client, wire.target)
        lost_end.ip("link set eth0 down")
        assert is_reset(other)
    assert relay.wait_ended(1)[0]["reason"] in ("error", f"{lost}_reset")
    assert "timed out" in str(relay.ended()[0]["detail"])


def test_a_target_that_answers_and_closes_at_once(start: Start, target: Target) -> None:
    """The connection is over before the relay has looked at it for the first time."""
    relay = start("-l", "127.0.0.1:0", "-r", target.address)
    for _ in range(200):
        with connect(relay.address) as client, target.accept() as server:
            server.sendall(b"220 busy")
            server.close()
            assert read_to_end(client) == b"220 busy"
    wait_until(lambda: relay.counted()["open"] == 0)


def test_curl_and_nginx(start: Start, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("www")
    payload = pattern(30_000_000)
    (folder / "file").write_bytes(payload)
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; user root; pid {folder}/pid; error_log {folder}/error; events {{}}\n"
        f"http {{ access_log off; client_max_body_size 100m; client_body_temp_path {folder}/b;"
        f"server {{ listen 127.0.0.1:{port}; root {folder};"
        f"location /put {{ dav_methods PUT; create_full_put_path on; }} }} }}\n"
    )
    with program("nginx", "-e", str(folder / "error"), "-c", str(configuration), port=port):
        relay = start("-l", "127.0.0.1:0", "-r", f"127.0.0.1:{port}")
        url = f"http://127.0.0.1:{relay.address[1]}"
        curl = ["curl", "-fsS", "--max-time", "20"]
        got = subprocess.run([*curl, f"{url}/file"], check=True, capture_output=True).stdout
        assert got == payload
        put = [*curl, "-T", str(folder / "file"), f"{url}/put/it"]
        subprocess.run(put, check=True, capture_output=True)
        assert (folder / "put" / "it").read_bytes() == payload


def test_socat_on_both_sides(start: Start) -> None:
    """The target's program works until the end of its input, and answers only then."""
    payload = pattern(30_000_000)
    port = free_port()
    listen = f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork"
    with program("socat", "-t", "20", listen, "EXEC:sha256sum", port=port):
        relay = start("-l", "127.0.0.1:0", "-r", f"127.0.0.1:{port}")
        heard = subprocess.run(
            ["socat", "-t", "20", "-", f"TCP:127.0.0.1:{relay.address[1]}"],
            input=payload,
            check=True,
            capture_output=True,
            timeout=20,
        ).stdout
    assert heard.split()[0].decode() == hashlib.sha256(payload).hexdigest()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def program(*words: str, port: int) -> Iterator[None]:
    """A server that runs until this is left; it listens when this is entered."""
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: listens(port), what=f"{words[0]} listens")
            yield
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
