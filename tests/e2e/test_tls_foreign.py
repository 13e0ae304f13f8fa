"""nginx and haproxy at the other end of TLS, as servers and as clients."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.certificates import Authority
from tests.support.peers import PATIENCE, Target, connect, end_writing, hear, read_to_end
from tests.support.wait import wait_until

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
with_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
with_haproxy = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="haproxy is not installed"
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.issue("server", "DNS:server.test")
    made.issue("proxy", "DNS:proxy.test")
    for name in ("server", "proxy"):
        both = [(made.folder / f"{name}.{kind}").read_text() for kind in ("crt", "key")]
        (made.folder / f"{name}.both").write_text("".join(both))
    # Workers of a root's nginx run as another user.
    made.folder.chmod(0o755)
    return made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int) -> Iterator[tuple[str, int]]:
    """A program in the foreground, once it listens."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:

        def listens() -> bool:
            assert process.poll() is None, command
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            wait_until(listens, PATIENCE, f"{command[0]} listens")
            yield "127.0.0.1", port
        finally:
            process.terminate()
            process.wait(PATIENCE)


@contextmanager
def nginx(folder: Path, port: int, body: str, load: str = "") -> Iterator[tuple[str, int]]:
    file = folder / "nginx.conf"
    log = folder / "error.log"
    head = f"{load} daemon off; pid {folder}/pid; error_log {log}; events {{}}"
    file.write_text(f"{head}\n{body}\n")
    with running(["nginx", "-p", str(folder), "-c", str(file), "-e", str(log)], port) as where:
        yield where


@with_nginx
@pytest.mark.parametrize("protocol", ["TLSv1.2", "TLSv1.3"])
def test_nginx_is_a_target_that_asks_for_our_certificate(
    start: Start, authority: Authority, tmp_path: Path, protocol: str
) -> None:
    port = free_port()
    here = authority.folder
    body = f"""http {{ access_log off; server {{
        listen 127.0.0.1:{port} ssl; server_name server.test; ssl_protocols {protocol};
        ssl_certificate {here}/server.crt; ssl_certificate_key {here}/server.key;
        ssl_client_certificate {here}/ca.crt; ssl_verify_client on;
        location / {{ return 200 "$ssl_server_name $ssl_client_s_dn $ssl_protocol"; }} }} }}"""
    with nginx(tmp_path, port, body) as (host, port):
        files = f"ca={here}/ca.crt;cert={here}/proxy.crt;key={here}/proxy.key"
        transport = f"tls;sni=server.test;{files}"
        relay = start("-l", "127.0.0.1:0", "-r", f"{host}:{port}", "--remote-transport", transport)
        for _ in range(2):  # The second one comes back to a session.
            with connect(relay.address) as client:
                client.sendall(b"GET / HTTP/1.0\r\nHost: server.test\r\n\r\n")
                answer = read_to_end(client).decode()
        assert answer.endswith(f"server.test CN=proxy,O=tests {protocol}"), answer
    assert relay.wait_ended(2)[0]["target_tls"] == protocol


@with_haproxy
def test_haproxy_is_a_client_that_shows_its_certificate(
    start: Start, target: Target, authority: Authority, tmp_path: Path
) -> None:
    here = authority.folder
    transport = f"tls;cert={here}/server.crt;key={here}/server.key;client_ca={here}/ca.crt"
    relay = start("-l", "127.0.0.1:0", "-r", target.address, "--listen-transport", transport)
    host, port = relay.address
    front = free_port()
    tls = f"ssl verify required ca-file {here}/ca.crt crt {here}/proxy.both sni str(server.test)"
    file = tmp_path / "haproxy.cfg"
    file.write_text(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n"
        f"listen front\n bind 127.0.0.1:{front}\n server back {host}:{port} {tls}\n"
    )
    with (
        running(["haproxy", "-db", "-f", str(file)], front) as where,
        connect(where) as client,
    ):
        client.sendall(b"through haproxy")
        # The probe that found haproxy listening may have come through as well.
        while True:
            with target.accept() as server:
                if server.recv(100) == b"through haproxy":
                    server.sendall(b"and back")
                    end_writing(server)
                    assert hear(client, 8) == b"and back"
                    assert client.recv(1) == b""
                    break
    wait_until(lambda: relay.ended(bytes_up=15), PATIENCE, "the end of the flow")
    (told,) = relay.ended(bytes_up=15)
    assert told["client_certificate"] == "CN=proxy,O=tests"
    assert told["sni"] == "server.test"
