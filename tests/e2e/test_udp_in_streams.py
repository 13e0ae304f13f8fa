"""UDP where only TCP passes: two relays with a stream for each association between them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Start
from tests.support.echo import udp_echo_server
from tests.support.peers import PATIENCE, pattern

TRANSPORTS = {
    "tcp": ("uot", "uot"),
    "ws": ("ws;host=a;path=/u;uot", "ws;host=a;path=/u;uot"),
    "tls": ("tls;servername=a;uot", "tls;sni=a;insecure;uot"),
    "wss": (
        "tls;servername=a;ws;host=a;path=/u;uot",
        "tls;sni=a;insecure;ws;host=a;path=/u;mask=random;uot",
    ),
}


@pytest.fixture
def echo() -> Iterator[int]:
    with udp_echo_server() as port:
        yield port


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_datagrams_of_many_clients_come_back(start: Start, echo: int, kind: str) -> None:
    listen, remote = TRANSPORTS[kind]
    exit_ = start("-l", "127.0.0.1:0", "-r", f"127.0.0.1:{echo}", "--listen-transport", listen)
    words = ("-u", "--ntcp", "--remote-transport", remote)
    entry = start("-l", "127.0.0.1:0", "-r", f"127.0.0.1:{exit_.address[1]}", *words)
    clients = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(20)]
    try:
        for number, client in enumerate(clients):
            client.settimeout(PATIENCE)
            client.connect(entry.address)
            client.send(pattern(100, seed=number))
        for number, client in enumerate(clients):
            assert client.recv(70_000) == pattern(100, seed=number)
        for size in (1, 1400, 9000, 65_507):
            clients[0].send(pattern(size))
            assert clients[0].recv(70_000) == pattern(size)
    finally:
        for client in clients:
            client.close()
    assert {flow["protocol"] for flow in entry.flows()} == {"udp"}
    assert len(exit_.flows()) == 20
    assert entry.counted("udp")["packets_down"] == 24
