"""A desk accepts connections for Python."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from typing import Any

import pytest

from qanat._engine import EngineError
from qanat.plan import DeskListenPlan, to_json
from tests.desk.test_tls import accept_plan, aside
from tests.support.certificates import Authority
from tests.support.desks import Held
from tests.support.wait import wait_until

__all__: list[str] = []


def listen(held: Held, **more: Any) -> tuple[int, tuple[str, int]]:
    handle, text = held.desk.listen(json.dumps({"listen": "127.0.0.1:0", **more}))
    host, port = text.rsplit(":", 1)
    return handle, (host, int(port))


def connect(held: Held, address: tuple[str, int]) -> socket.socket:
    sock = held.keep(socket.create_connection(address))
    sock.settimeout(10)
    return sock


def test_connections_become_legs(held: Held) -> None:
    listener, address = listen(held)
    for number in range(20):
        client = connect(held, address)
        accepted = held.hear(listener, "accepted")
        assert accepted["peer"] == "{}:{}".format(*client.getsockname())
        assert accepted["local"] == "{}:{}".format(*address)
        assert accepted["tls"] is None
        client.sendall(str(number).encode())
        assert held.read(accepted["leg"], len(str(number))) == str(number).encode()
        held.desk.close(accepted["leg"])


def test_hands_are_shaken_before_python_hears_of_it(held: Held, authority: Authority) -> None:
    listener, address = listen(held, tls=json.loads(accept_plan(authority, hello=True)))
    silent = connect(held, address)
    wrong = connect(held, address)
    wrong.sendall(b"GET / HTTP/1.1\r\n\r\n")
    while wrong.recv(100):
        pass
    client = connect(held, address)
    wrapped = aside(
        lambda: held.keep(authority.client().wrap_socket(client, server_hostname="server.test"))
    )
    accepted = held.hear(listener, "accepted")
    assert accepted["tls"]["sni"] == "server.test"
    assert accepted["tls"]["hello"].startswith("01")
    wrapped.result(10).sendall(b"hello")
    assert held.read(accepted["leg"], 5) == b"hello"
    # The others came first, and are not heard of.
    assert not held.heard()
    held.desk.close_listener(listener)
    silent.close()


def test_more_than_may_wait_wait_in_the_kernel(held: Held) -> None:
    listener, address = listen(held, waiting=3)
    clients = [connect(held, address) for _ in range(10)]

    got: list[dict[str, Any]] = []

    def fetch() -> bool:
        """Whether there was something."""
        reports = held.desk.take()
        fetched = [json.loads(text) for handle, _, text in reports if handle == listener]
        assert len(fetched) <= 3
        got.extend(fetched)
        return bool(fetched)

    while len(got) < 10:
        wait_until(fetch)
    assert {one["peer"] for one in got} == {
        "{}:{}".format(*client.getsockname()) for client in clients
    }


def test_a_flood_of_silent_clients_is_bounded(held: Held, authority: Authority) -> None:
    plan = json.loads(accept_plan(authority, handshake_timeout=0.5))
    listener, address = listen(held, tls=plan, waiting=2)
    flood = [connect(held, address) for _ in range(6)]
    client = connect(held, address)
    # Only when the first ones were given up is there room for it.
    wrapped = aside(
        lambda: held.keep(authority.client().wrap_socket(client, server_hostname="server.test"))
    )
    held.hear(listener, "accepted")
    assert isinstance(wrapped.result(10), ssl.SSLSocket)
    for sock in flood:
        sock.close()


def test_an_inherited_socket_is_used(held: Held) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    handle, text = held.desk.listen(to_json(DeskListenPlan(listen="127.0.0.1:1")), sock.fileno())
    sock.detach()
    assert text == "{}:{}".format(*address)
    connect(held, address)
    held.hear(handle, "accepted")
    ours, _ = held.pair()
    with pytest.raises(EngineError) as error:
        held.desk.listen(to_json(DeskListenPlan(listen="127.0.0.1:1")), ours.fileno())
    assert error.value.code == "descriptor"


def test_closing_frees_the_port_at_once(held: Held) -> None:
    listener, address = listen(held)
    waiting = connect(held, address)
    held.desk.close_listener(listener)
    held.desk.close_listener(listener)
    with socket.create_server(address):
        pass
    with pytest.raises(ConnectionResetError):
        waiting.recv(1)
    assert not held.heard()


def test_a_port_in_use_says_so(held: Held) -> None:
    _, address = listen(held)
    with pytest.raises(EngineError) as error:
        listen(held, listen="{}:{}".format(*address))
    assert (error.value.code, error.value.errno) == ("bind", 98)
    with pytest.raises(EngineError) as error:
        listen(held, listen="nowhere")
    assert error.value.code == "plan"


def test_many_at_once_are_all_heard_of(held: Held) -> None:
    listener, address = listen(held)

    def come() -> None:
        for _ in range(50):
            socket.create_connection(address).close()

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        held.desk.close(held.hear(listener, "accepted")["leg"])
    for thread in threads:
        thread.join()
