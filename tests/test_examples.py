"""Every example runs as it is, and shows what it promises."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.echo import echo_server

EXAMPLES = Path(__file__).parent.parent / "examples"
ADDRESS = re.compile(r"127\.0\.0\.1:\d+")


@contextmanager
def started(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    example = subprocess.Popen(
        [sys.executable, EXAMPLES / name, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    try:
        yield example
    finally:
        example.kill()
        example.communicate()


def line(example: subprocess.Popen[str]) -> str:
    assert example.stdout is not None
    read = example.stdout.readline()
    assert read, example.stderr.read() if example.stderr else ""
    return read.rstrip()


def say(example: subprocess.Popen[str], text: str) -> None:
    assert example.stdin is not None
    example.stdin.write(text + "\n")


def connect(text: str) -> socket.socket:
    found = ADDRESS.search(text)
    assert found, text
    host, _, port = found[0].rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def test_basic() -> None:
    with (
        echo_server() as port,
        started("relay_basic.py", "127.0.0.1:0", f"127.0.0.1:{port}") as example,
    ):
        with connect(line(example)) as client:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
        assert re.fullmatch(
            r"127\.0\.0\.1:\d+: 5 bytes up, 5 down in \d\.\d{3} s, client_closed", line(example)
        )
        example.send_signal(signal.SIGINT)
        assert example.communicate(timeout=10) == ("", "")
        assert example.returncode == 0


def test_reload() -> None:
    with (
        echo_server(b"1") as first,
        echo_server(b"2") as second,
        started("relay_reload.py", f"127.0.0.1:{first}") as example,
    ):
        address = line(example)
        with connect(address) as old:
            assert old.recv(1) == b"1"
            say(example, f"127.0.0.1:{second}")
            assert line(example) == "0 added, 0 removed, 1 changed, 1 untouched; 1 open"
            with connect(address) as new:
                assert new.recv(1) == b"2"
            old.sendall(b"still")
            assert old.recv(5) == b"still"
            say(example, "no-port")
            assert line(example).startswith("as before: ")
            with connect(address) as new:
                assert new.recv(1) == b"2"
        out, err = example.communicate("\n", timeout=10)
        assert (out, err, example.returncode) == ("", "", 0)


def test_events() -> None:
    with echo_server() as port, started("relay_events.py", f"127.0.0.1:{port}") as example:
        address = line(example)
        for _ in range(3):
            with connect(address) as client:
                client.sendall(b"hello")
                assert client.recv(5) == b"hello"
        example.send_signal(signal.SIGTERM)
        out, err = example.communicate(timeout=10)
        assert (out, err) == ("{'client_closed': 3}, 0 cut\n", "")
        assert example.returncode == 0


def test_events_tells_of_a_target_that_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with started("relay_events.py", f"127.0.0.1:{port}") as example:
        address = line(example)
        with pytest.raises(ConnectionError), connect(address) as client:
            client.sendall(b"hello")
            if client.recv(1) == b"":
                raise ConnectionError
        assert re.fullmatch(r"front: can't connect to .* \(1 times\)", line(example))


def test_threads() -> None:
    class Page(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with started("relay_threads.py", f"127.0.0.1:{server.server_port}") as example:
            out, err = example.communicate(timeout=15)
    assert (err, example.returncode) == ("", 0)
    assert re.search(r"^200 by way of 127\.0\.0\.1:\d+$", out, re.MULTILINE)
    assert out.endswith("1 in all\n")


def test_hook_by_network() -> None:
    for network, greeting in (("127.0.0.0/8", b"2"), ("192.0.2.0/24", b"1")):
        with (
            echo_server(b"1") as first,
            echo_server(b"2") as second,
            started(
                "hook_by_network.py", f"127.0.0.1:{first}", f"127.0.0.1:{second}", network
            ) as example,
        ):
            with connect(line(example)) as client:
                assert client.recv(1) == greeting
            target = second if greeting == b"2" else first
            assert line(example).endswith(f" -> 127.0.0.1:{target}: client_closed")
            example.send_signal(signal.SIGINT)
            assert example.communicate(timeout=10) == ("", "")


def test_hook_first_bytes() -> None:
    with (
        echo_server() as ssh,
        echo_server() as other,
        started("hook_first_bytes.py", f"127.0.0.1:{ssh}", f"127.0.0.1:{other}") as example,
    ):
        address = line(example)
        for said, target in [(b"GET / HTTP/1.1", other), *3 * [(b"SSH-2.0-test", ssh)]]:
            with connect(address) as client:
                client.sendall(said)
                assert client.recv(100) == said
            assert line(example) == f"127.0.0.1:{target}: client_closed"
        with connect(address) as client:
            client.sendall(b"SSH-2.0-test")
            with pytest.raises(ConnectionResetError):
                client.recv(100)
        assert {line(example).rpartition(": ")[2] for _ in range(2)} == {"too many tries"}
        example.send_signal(signal.SIGINT)
        assert example.communicate(timeout=10) == ("", "")


def ended(example: subprocess.Popen[str]) -> str:
    """Stop a server of the framework; what it still said."""
    example.send_signal(signal.SIGINT)
    out, err = example.communicate(timeout=10)
    assert (example.returncode, err) == (0, "")
    return out


def test_stack_echo() -> None:
    with started("stack_echo.py", "127.0.0.1:0") as example:
        assert line(example).startswith("LimitConns(count=1000")
        assert line(example).startswith("Timeout(seconds=60")
        assert line(example) == "echo"
        with connect(line(example)) as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            assert client.makefile("rb").read() == b"hello"
        assert ended(example) == ""


def test_stack_custom_layer() -> None:
    with started("stack_custom_layer.py", "127.0.0.1:0") as example:
        with connect(line(example)) as client:
            client.sendall(b"and now an echo")
            client.shutdown(socket.SHUT_WR)
            assert client.makefile("rb").read() == b"hello, 127.0.0.1\nand now an echo"
        assert ended(example) == ""


def test_proxies_and_a_forward_through_one() -> None:
    with (
        echo_server() as echo,
        started("proxy_socks5_auth.py", "127.0.0.1:0", "john", "secret") as proxy,
    ):
        found = ADDRESS.search(line(proxy))
        assert found
        way = f"socks5h://john:secret@{found[0]}"
        with (
            started("stack_forward.py", "127.0.0.1:0", f"127.0.0.1:{echo}") as direct,
            started("stack_forward.py", "127.0.0.1:0", f"127.0.0.1:{echo}", way) as through,
        ):
            for example in (direct, through):
                with connect(line(example)) as client:
                    client.sendall(b"hello")
                    assert client.recv(100) == b"hello"
                assert ended(example) == ""
        assert ended(proxy) == ""


def test_stack_chain() -> None:
    def where(example: subprocess.Popen[str]) -> str:
        found = ADDRESS.search(line(example))
        assert found
        return found[0]

    with (
        echo_server() as echo,
        started("proxy_socks5_auth.py", "127.0.0.1:0", "john", "secret") as first,
        started("stack_chain.py", "127.0.0.1:0") as second,
    ):
        chain = [f"socks5h://john:secret@{where(first)}", f"http://{where(second)}"]
        with started("stack_chain.py", "127.0.0.1:0", *chain) as example:
            address = where(example)

            def status() -> bytes:
                with connect(address) as client:
                    client.sendall(f"CONNECT 127.0.0.1:{echo} HTTP/1.1\r\n\r\n".encode())
                    answers = client.makefile("rb")
                    said = answers.readline().split()[1]
                    if said == b"200":
                        assert answers.readline() == b"\r\n"
                        client.sendall(b"hello")
                        assert answers.read(5) == b"hello"
                    return said

            assert status() == b"200"
            assert ended(first) == ""
            # Nobody else leads to the second one.
            assert status() == b"502"
            assert ended(example) == ""
        assert ended(second) == ""


def test_proxy_connect_policy() -> None:
    with started("proxy_connect_policy.py", "127.0.0.1:0", "allowed.example") as example:
        address = line(example)
        for target, status in [("other.example:443", b"403"), ("allowed.example:80", b"403")]:
            with connect(address) as client:
                client.sendall(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())
                assert client.makefile("rb").readline().split()[1] == status
        assert ended(example) == ""


def test_stack_tls_terminator(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost", "DNS:localhost,IP:127.0.0.1")
    with (
        echo_server() as echo,
        started(
            "stack_tls_terminator.py",
            "127.0.0.1:0",
            f"127.0.0.1:{echo}",
            str(certificate),
            str(key),
        ) as example,
    ):
        with (
            connect(line(example)) as plain,
            authority.client().wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
            assert line(example) == "TLSv1.3, asked for localhost"
        assert ended(example) == ""


def test_stack_sni_router(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    for name in ("one.test", "any.two.test"):
        authority.issue(name, f"DNS:{name}")
    keys = [
        (str(tmp_path / f"{name}.crt"), str(tmp_path / f"{name}.key"))
        for name in ("one.test", "any.two.test")
    ]
    with (
        echo_server() as echo,
        started("stack_tls_terminator.py", "127.0.0.1:0", f"127.0.0.1:{echo}", *keys[0]) as one,
        started("stack_tls_terminator.py", "127.0.0.1:0", f"127.0.0.1:{echo}", *keys[1]) as two,
        started(
            "stack_sni_router.py",
            "127.0.0.1:0",
            f"one.test={line(one).split()[-1]}",
            f"*.two.test={line(two).split()[-1]}",
        ) as router,
    ):
        address = line(router).split()[-1]
        for name in ("one.test", "any.two.test"):
            with (
                connect(address) as plain,
                authority.client().wrap_socket(plain, server_hostname=name) as client,
            ):
                client.sendall(b"hello")
                assert client.recv(100) == b"hello"
        with connect(address) as plain, pytest.raises(OSError):
            authority.client().wrap_socket(plain, server_hostname="three.test")
        assert line(router) == "nobody serves three.test"
        assert ended(router) == ""
        assert ended(one) == "TLSv1.3, asked for one.test\n"
        assert ended(two) == "TLSv1.3, asked for any.two.test\n"


def test_every_example_is_run_and_fits_on_a_page() -> None:
    source = Path(__file__).read_text()
    for example in EXAMPLES.glob("*.py"):
        assert f'"{example.name}"' in source, f"{example.name} is run by no test"
        assert len(example.read_text().splitlines()) <= 60
