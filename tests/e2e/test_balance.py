"""Where flows go when an endpoint has several remotes: as a file says it, seen from outside."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.datagrams import udp_client, udp_target
from tests.support.echo import echo_server
from tests.support.peers import connect, hear
from tests.support.relay_process import RelayProcess
from tests.support.wait import wait_until


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Three targets, which greet with their number."""
    with ExitStack() as stack:
        yield [stack.enter_context(echo_server(str(number).encode())) for number in range(3)]


def configured(folder: Path, ports: Sequence[int], *lines: str) -> Path:
    addresses = [f"127.0.0.1:{port}" for port in ports]
    text = [
        "[[endpoints]]",
        'listen = "127.0.0.1:0"',
        f'remote = "{addresses[0]}"',
        f"extra_remotes = {addresses[1:]}",
        *lines,
    ]
    path = folder / "relay.toml"
    path.write_text("\n".join(text) + "\n")
    return path


def greetings(relay: RelayProcess, count: int) -> str:
    """The numbers of the targets that so many connections reach, one after the other."""
    found = b""
    for _ in range(count):
        with connect(relay.address) as client:
            found += hear(client, 1)
    return found.decode()


@pytest.mark.parametrize(
    ("weights", "cycle"),
    [
        ("4, 2, 1", "0102010"),
        ("5, 1, 1", "0010200"),
        ("1, 1, 1", "012"),
        ("1, 0, 2", "202"),
    ],
)
def test_round_robin(
    start: Start, tmp_path: Path, ports: list[int], weights: str, cycle: str
) -> None:
    relay = start("-c", str(configured(tmp_path, ports, f'balance = "roundrobin: {weights}"')))
    assert greetings(relay, 3 * len(cycle)) == 3 * cycle


def test_a_client_stays_with_its_remote(start: Start, tmp_path: Path, ports: list[int]) -> None:
    relay = start("-c", str(configured(tmp_path, ports, 'balance = "iphash"')))
    assert len(set(greetings(relay, 12))) == 1


def test_clients_are_spread_by_their_addresses(
    start: Start, tmp_path: Path, ports: list[int]
) -> None:
    relay = start("-c", str(configured(tmp_path, ports, 'balance = "iphash: 1, 0, 1"')))
    homes = {}
    for number in range(1, 61):
        homes[number] = _greeting_from(f"127.0.9.{number}", relay)
    count = Counter(homes.values())
    assert count["1"] == 0, "a remote of weight 0 gets nothing"
    assert min(count["0"], count["2"]) >= 15, count
    again = {number: _greeting_from(f"127.0.9.{number}", relay) for number in homes}
    assert again == homes


def _greeting_from(source: str, relay: RelayProcess) -> str:
    with socket.create_connection(relay.address, 10, source_address=(source, 0)) as client:
        return hear(client, 1).decode()


@pytest.mark.parametrize("weights", ["1, 2", "0, 0, 0", "1, 2, 256", "1, x, 3"])
def test_wrong_weights_are_refused_at_start(tmp_path: Path, ports: list[int], weights: str) -> None:
    path = configured(tmp_path, ports, f'balance = "roundrobin: {weights}"')
    command = [sys.executable, "-m", "qanat", "relay", "-c", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 1
    assert "balance" in ran.stderr
    assert f"{path}:5" in ran.stderr


def test_associations_are_balanced_too(start: Start, tmp_path: Path) -> None:
    with udp_target() as one, udp_target() as other:
        ports = [target.getsockname()[1] for target in (one, other)]
        path = configured(
            tmp_path,
            ports,
            'balance = "roundrobin: 2, 1"',
            "network = { use_udp = true, no_tcp = true }",
        )
        relay = start("-c", str(path))
        clients = [udp_client(relay.address) for _ in range(6)]
        for client in clients:
            for _ in range(2):
                client.send(b"x")
        wait_until(lambda: len(relay.flows()) == 6, what="six associations")
        targets = Counter(flow["target"] for flow in relay.flows())
        assert targets == {f"127.0.0.1:{ports[0]}": 4, f"127.0.0.1:{ports[1]}": 2}
        for client in clients:
            client.close()


def test_what_a_file_says_can_be_changed_while_it_runs(
    start: Start, tmp_path: Path, ports: list[int]
) -> None:
    relay = start("-c", str(configured(tmp_path, ports, 'balance = "roundrobin"')))
    assert greetings(relay, 3) == "012"
    with connect(relay.address) as client:
        assert hear(client, 1) == b"0"
        configured(tmp_path, ports[1:], 'balance = "roundrobin: 1, 3"')
        relay.reload()
        # Those that were there live on where they are.
        client.sendall(b"still here")
        assert hear(client, 10) == b"still here"
        assert Counter(greetings(relay, 8)) == {"1": 2, "2": 6}
