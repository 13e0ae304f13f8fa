"""WebSocket with peers that others have written: the ``websockets`` package, curl, a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import CloseCode
from websockets.protocol import State
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_ws
from websockets.sync.server import Server, ServerConnection, serve
from websockets.uri import parse_uri

from tests.e2e.conftest import Start
from tests.support.echo import echo_server
from tests.support.peers import (
    PATIENCE,
    Target,
    beside,
    connect,
    end_writing,
    flow,
    hear,
    pattern,
    read_to_end,
)
from tests.support.relay_process import RelayProcess
from tests.support.wait import wait_until

WS = "ws;host=127.0.0.1;path=/chat"
SIZES = [1, 8 << 10, 1 << 20]
BROWSERS = ("chromium-headless-shell", "chromium")


@pytest.fixture
def echo() -> Iterator[int]:
    with echo_server() as port:
        yield port


def listening(start: Start, target: str, *words: str) -> RelayProcess:
    return start("-l", "127.0.0.1:0", "-r", target, "--listen-transport", WS, *words)


def sending(start: Start, target: str, options: str = WS) -> RelayProcess:
    return start("-l", "127.0.0.1:0", "-r", target, "--remote-transport", options)


def url(relay: RelayProcess, path: str = "/chat") -> str:
    host, port = relay.address
    return f"ws://{host}:{port}{path}"


def client_of(relay: RelayProcess) -> ClientConnection:
    return connect_ws(url(relay), compression=None, proxy=None, max_size=None)


def heard(client: ClientConnection, length: int) -> bytes:
    """Payload of as many messages as it takes."""
    got = bytearray()
    while len(got) < length:
        message = client.recv(PATIENCE)
        assert isinstance(message, bytes), "what we send is binary"
        got += message
    return bytes(got)


# A client of others


def test_a_foreign_client_gets_back_what_it_sends(start: Start, echo: int) -> None:
    relay = listening(start, f"127.0.0.1:{echo}")
    with client_of(relay) as client:
        for size in SIZES:
            client.send(pattern(size))
            assert heard(client, size) == pattern(size)
        client.send("words, which are bytes as well")
        assert heard(client, 30) == b"words, which are bytes as well"
        client.send([b"in ", b"three ", b"fragments"])
        assert heard(client, 18) == b"in three fragments"
        assert client.ping("are you there").wait(PATIENCE)
        client.pong()
        client.send(b"still here")
        assert heard(client, 10) == b"still here"
    assert client.close_code == CloseCode.NORMAL_CLOSURE
    assert relay.end_of_flow()["reason"] == "client_closed"


def test_a_foreign_client_that_is_offered_compression_gets_none(start: Start, echo: int) -> None:
    relay = listening(start, f"127.0.0.1:{echo}")
    with connect_ws(url(relay), proxy=None) as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers
        client.send(b"plain")
        assert heard(client, 5) == b"plain"


def test_a_foreign_client_may_write_byte_by_byte(start: Start, target: Target) -> None:
    relay = listening(start, target.address)
    client = ClientProtocol(parse_uri(url(relay)))
    client.send_request(client.connect())
    text = pattern(300)
    with flow_of_bytes(relay, client) as write:
        write()
        with target.accept() as server:
            client.send_binary(text[:5], fin=False)
            client.send_ping(b"in between")
            client.send_continuation(text[5:], fin=True)
            write()
            assert hear(server, len(text)) == text
            client.send_close(CloseCode.GOING_AWAY)
            write()
            assert read_to_end(server) == b""
    assert client.state is State.CLOSED
    assert client.close_code == CloseCode.GOING_AWAY


@contextmanager
def flow_of_bytes(relay: RelayProcess, client: ClientProtocol) -> Iterator[Callable[[], None]]:
    """Write what a protocol wants to be written one byte at a time, and read what it is told."""
    with connect(relay.address) as sock:

        def write() -> None:
            for data in client.data_to_send():
                for byte in data:
                    sock.sendall(bytes([byte]))
            while client.state is State.CONNECTING:
                client.receive_data(sock.recv(65_536))

        yield write
        while data := sock.recv(65_536):
            client.receive_data(data)
        client.receive_eof()


def test_the_end_of_the_target_is_a_normal_closure(start: Start, target: Target) -> None:
    relay = listening(start, target.address)
    with client_of(relay) as client:
        with target.accept() as server:
            server.sendall(b"goodbye")
        assert heard(client, 7) == b"goodbye"
        with pytest.raises(ConnectionClosed):
            client.recv(PATIENCE)
        assert client.close_code == CloseCode.NORMAL_CLOSURE
    assert relay.end_of_flow()["reason"] == "target_closed"


def test_a_foreign_client_of_something_else_is_told_so(start: Start, echo: int) -> None:
    relay = listening(start, f"127.0.0.1:{echo}")
    with pytest.raises(InvalidStatus) as refused:
        connect_ws(url(relay, "/other"), proxy=None)
    assert refused.value.response.status_code == 404
    assert "/other" in relay.end_of_flow()["detail"]


# A server of others


@contextmanager
def foreign_server(handler: Callable[[ServerConnection], None]) -> Iterator[int]:
    with serve(handler, "127.0.0.1", 0, max_size=None) as server:
        assert isinstance(server, Server)
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        serving.join(PATIENCE)


@pytest.mark.parametrize("mask", ["", ";mask=random"], ids=["zero", "random"])
def test_a_foreign_server_gets_what_is_sent(start: Start, mask: str) -> None:
    closed: list[int | None] = []

    def answer(server: ServerConnection) -> None:
        assert server.request is not None
        assert server.request.path == "/chat"
        assert server.request.headers["Host"] == "127.0.0.1"
        server.send("welcome")
        assert server.ping().wait(PATIENCE)
        for message in server:
            server.send(message)
        closed.append(server.close_code)

    with foreign_server(answer) as port:
        relay = sending(start, f"127.0.0.1:{port}", WS + mask)
        with connect(relay.address) as client:
            assert hear(client, 7) == b"welcome"
            for size in SIZES:
                done = beside(client.sendall, pattern(size))
                assert hear(client, size) == pattern(size)
                done.result(PATIENCE)
            end_writing(client)
            assert client.recv(1) == b""
    assert closed == [CloseCode.NORMAL_CLOSURE]


def test_the_close_of_a_foreign_server_is_the_end(start: Start) -> None:
    def leave(server: ServerConnection) -> None:
        server.send([b"last ", b"words"])

    with foreign_server(leave) as port:
        relay = sending(start, f"127.0.0.1:{port}")
        with connect(relay.address) as client:
            assert read_to_end(client) == b"last words"
    assert relay.end_of_flow()["reason"] == "target_closed"


def test_a_foreign_server_that_refuses_is_quoted(start: Start, echo: int) -> None:
    relay = listening(start, f"127.0.0.1:{echo}")
    before = sending(start, f"127.0.0.1:{relay.address[1]}", "ws;host=127.0.0.1;path=/wrong")
    # It may come before the connection is seen as made.
    with pytest.raises(ConnectionResetError), connect(before.address) as client:
        read_to_end(client)
    record = before.end_of_flow()
    assert record["reason"] == "target_handshake_failed"
    assert "404 Not Found" in record["detail"]
    # The end of a flow and the notice of it come to the log in any order.
    wait_until(
        lambda: any("404 Not Found" in line["message"] for line in before.notices()),
        what="the refusal is in the log",
    )


# curl


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_is_answered(start: Start, echo: int) -> None:
    relay = listening(start, f"127.0.0.1:{echo}")
    host, port = relay.address

    def curl(path: str, *headers: str) -> str:
        words = [word for header in headers for word in ("-H", header)]
        words += ["--max-time", "5", f"http://{host}:{port}{path}"]
        asked = subprocess.run(["curl", "-sNi", *words], capture_output=True, check=False)
        return asked.stdout.decode()

    assert curl("/").startswith("HTTP/1.1 404 Not Found\r\n")
    assert curl("/chat").startswith("HTTP/1.1 426 Upgrade Required\r\n")
    upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    assert curl("/chat", *upgrade).startswith("HTTP/1.1 400 Bad Request\r\n")


# A browser

PAGE = """<!doctype html><script>
const socket = new WebSocket(URL);
const seen = [];
socket.binaryType = "arraybuffer";
socket.onopen = () => { socket.send("hello from a page"); socket.send(new Uint8Array(70000)); };
socket.onmessage = (event) => {
  seen.push(new TextDecoder().decode(event.data));
  if (seen.join("") === "and back") socket.close(1000, "enough");
};
socket.onclose = (event) => {
  const told = new WebSocket(URL);
  const report = {seen: seen.join(""), clean: event.wasClean, code: event.code};
  told.onopen = () => told.send(JSON.stringify(report) + "\\n");
};
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="there is no browser")
def test_a_page_in_a_browser_talks_to_the_target(
    start: Start, target: Target, tmp_path: Path
) -> None:
    relay = listening(start, target.address)
    page = tmp_path / "page.html"
    page.write_text(PAGE.replace("URL", json.dumps(url(relay))))
    browser = next(filter(None, map(shutil.which, BROWSERS)))
    # A port for debugging keeps it running until it is ended.
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    running = subprocess.Popen(
        [browser, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with target.accept() as server:
            assert hear(server, 17 + 70_000) == b"hello from a page" + bytes(70_000)
            server.sendall(b"and back")
            assert read_to_end(server) == b""
        with target.accept() as server, server.makefile("rb") as lines:
            report = json.loads(lines.readline())
    finally:
        running.kill()
        running.wait()
    # The close is answered with the code that it came with.
    assert report == {"seen": "and back", "clean": True, "code": 1000}


# Our own two ends


PAIRS = {
    "ws": (WS, WS),
    "ws, random mask": (WS, f"{WS};mask=random"),
    "wss": (f"tls;servername=a;{WS}", f"{WS};tls;sni=a;insecure"),
}


@pytest.fixture(params=PAIRS)
def entry(request: pytest.FixtureRequest, start: Start, target: Target) -> RelayProcess:
    """A relay in front of another one, with the target behind."""
    listen, remote = PAIRS[request.param]
    exit_ = start("-l", "127.0.0.1:0", "-r", target.address, "--listen-transport", listen)
    return sending(start, f"127.0.0.1:{exit_.address[1]}", remote)


def test_two_of_ours_carry_any_size_both_ways(entry: RelayProcess, target: Target) -> None:
    for size in SIZES:
        with flow(entry.address, target) as (client, server):
            done = beside(client.sendall, pattern(size))
            assert hear(server, size) == pattern(size)
            done.result(PATIENCE)
            end_writing(client)
            assert server.recv(1) == b""
            # The other direction goes on.
            done = beside(server.sendall, pattern(size, seed=1))
            assert hear(client, size) == pattern(size, seed=1)
            done.result(PATIENCE)
            end_writing(server)
            assert client.recv(1) == b""
    assert all(record["reason"] == "client_closed" for record in entry.wait_ended(3))


def test_two_of_ours_let_the_server_speak_and_leave_first(
    entry: RelayProcess, target: Target
) -> None:
    with flow(entry.address, target) as (client, server):
        server.sendall(b"220 ready\r\n")
        assert hear(client, 11) == b"220 ready\r\n"
        end_writing(server)
        assert client.recv(1) == b""
        client.sendall(b"i still speak")
        end_writing(client)
        assert read_to_end(server) == b"i still speak"
    assert entry.end_of_flow()["reason"] == "target_closed"
