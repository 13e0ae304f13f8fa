"""TLS on either side of a relay in a process of its own, with Python's ssl at the other end."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.certificates import Authority
from tests.support.peers import (
    PATIENCE,
    Target,
    beside,
    connect,
    end_writing,
    hear,
    pattern,
    read_to_end,
)
from tests.support.relay_process import RelayProcess, endpoints_toml
from tests.support.wait import wait_until

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

MUCH = 20_000_000


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.issue("server", "DNS:server.test,IP:127.0.0.1")
    made.issue("other", "DNS:other.test,DNS:*.wild.test")
    made.issue("alice", "DNS:alice.test")
    return made


def listening(authority: Authority, *more: str, name: str = "server") -> str:
    files = f"cert={authority.folder}/{name}.crt;key={authority.folder}/{name}.key"
    return ";".join(["tls", files, *more])


@contextmanager
def shaken(
    relay: RelayProcess, context: ssl.SSLContext, name: str = "server.test"
) -> Iterator[ssl.SSLSocket]:
    with (
        connect(relay.address) as plain,
        context.wrap_socket(plain, server_hostname=name) as sock,
    ):
        yield sock


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_with_tls_reaches_a_plain_target(
    start: Start, target: Target, authority: Authority, version: ssl.TLSVersion
) -> None:
    transport = listening(authority, "alpn=h2,http/1.1")
    relay = start("-l", "127.0.0.1:0", "-r", target.address, "--listen-transport", transport)
    context = authority.client()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["http/1.1"])
    up, down = pattern(MUCH), pattern(MUCH // 2)
    with shaken(relay, context) as client:
        assert client.selected_alpn_protocol() == "http/1.1"
        with target.accept() as server:
            sending = beside(client.sendall, up)
            assert hear(server, MUCH) == up
            sending.result(PATIENCE)
            sending = beside(server.sendall, down)
            assert hear(client, MUCH // 2) == down
            sending.result(PATIENCE)
            end_writing(server)
            assert client.recv(1) == b""
            client.unwrap()
            assert read_to_end(server) == b""
    told = relay.end_of_flow()
    assert told["reason"] == "target_closed"
    assert told["tls"] == version.name.replace("_", ".")
    assert told["sni"] == "server.test"
    assert told["alpn"] == "http/1.1"


def test_a_plain_client_reaches_a_target_with_tls(start: Start, authority: Authority) -> None:
    with Target() as target:
        transport = f"tls;sni=server.test;ca={authority.cert};alpn=x"
        relay = start("-l", "127.0.0.1:0", "-r", target.address, "--remote-transport", transport)
        with connect(relay.address) as client:
            context = authority.server("server")
            context.set_alpn_protocols(["x"])
            shaking = beside(context.wrap_socket, target.accept(), server_side=True)
            client.sendall(b"question")
            with shaking.result(PATIENCE) as server:
                assert server.recv(100) == b"question"
                server.sendall(b"answer")
                assert hear(client, 6) == b"answer"
                end_writing(client)
                assert server.recv(1) == b""
        told = relay.end_of_flow()
        assert (told["target_tls"], told["target_alpn"]) == ("TLSv1.3", "x")


def test_the_systems_authorities_count_without_a_file(start: Start, authority: Authority) -> None:
    with Target() as target:
        words = ("-l", "127.0.0.1:0", "-r", target.address)
        transport = "tls;sni=127.0.0.1"
        relay = start(*words, "--remote-transport", transport, SSL_CERT_FILE=str(authority.cert))
        with connect(relay.address) as client:
            context = authority.server("server")
            shaking = beside(context.wrap_socket, target.accept(), server_side=True)
            client.sendall(b"x")
            with shaking.result(PATIENCE) as server:
                assert server.recv(1) == b"x"


def test_a_target_that_is_somebody_else_is_refused(
    start: Start, target: Target, authority: Authority
) -> None:
    transport = f"tls;sni=server.test;ca={authority.cert}"
    relay = start("-l", "127.0.0.1:0", "-r", target.address, "--remote-transport", transport)
    with connect(relay.address) as client:
        context = authority.server("other")
        shaking = beside(context.wrap_socket, target.accept(), server_side=True)
        with pytest.raises(ssl.SSLError):
            shaking.result(PATIENCE)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    told = relay.end_of_flow()
    assert told["reason"] == "target_handshake_failed"
    assert "not made out to server.test" in told["detail"]


def test_two_relays_make_a_tunnel(start: Start, target: Target) -> None:
    """As in realm's examples: a self-signed certificate at one end, ``insecure`` at the other."""
    back = start(
        "-l", "127.0.0.1:0", "-r", target.address, "--listen-transport", "tls;servername=any.test"
    )
    host, port = back.address
    front = start(
        "-l",
        "127.0.0.1:0",
        "-r",
        f"{host}:{port}",
        "--remote-transport",
        "tls;sni=any.test;insecure",
    )
    with connect(front.address) as client, target.accept() as server:
        server.sendall(b"220 first")
        assert hear(client, 9) == b"220 first"
        client.sendall(b"hello")
        end_writing(client)
        assert read_to_end(server) == b"hello"
        server.sendall(b"after the end")
        end_writing(server)
        assert read_to_end(client) == b"after the end"


def test_clients_show_certificates(start: Start, target: Target, authority: Authority) -> None:
    transport = listening(authority, f"client_ca={authority.cert}")
    relay = start("-l", "127.0.0.1:0", "-r", target.address, "--listen-transport", transport)
    with shaken(relay, authority.client("alice")) as client:
        client.sendall(b"it is me")
        with target.accept() as server:
            assert hear(server, 8) == b"it is me"
    assert relay.end_of_flow()["client_certificate"] == "CN=alice,O=tests"
    with pytest.raises(ssl.SSLError), shaken(relay, authority.client()) as client:
        client.recv(1)
    assert relay.wait_ended(2)[-1]["detail"] == "the client showed no certificate"


def test_secrets_are_logged_on_request(
    start: Start, target: Target, authority: Authority, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    config = tmp_path / "relay.toml"
    files = {name: authority.folder / f"server.{name}" for name in ("crt", "key")}
    table = "[endpoints.listen_transport.tls]\n"
    table += f'cert = "{files["crt"]}"\nkey = "{files["key"]}"\nkey_log = true\n'
    config.write_text(endpoints_toml([("127.0.0.1:0", target.address)]) + table)
    relay = start("-c", str(config), SSLKEYLOGFILE=str(secrets))
    with shaken(relay, authority.client()) as client:
        client.sendall(b"x")
        with target.accept() as server:
            assert hear(server, 1) == b"x"
    assert "CLIENT_TRAFFIC_SECRET_0" in secrets.read_text()


def test_renewed_files_serve_new_clients_and_old_flows_go_on(
    start: Start, target: Target, tmp_path: Path
) -> None:
    own = Authority(tmp_path / "own")
    own.issue("server", "DNS:server.test")
    relay = start("-l", "127.0.0.1:0", "-r", target.address, "--listen-transport", listening(own))
    context = own.client()

    def shown() -> bytes:
        with shaken(relay, context) as client, target.accept():
            found = client.getpeercert(binary_form=True)
            assert found is not None
            return found

    with shaken(relay, context) as standing, target.accept() as server:
        old = shown()
        own.issue("server", "DNS:server.test")
        wait_until(lambda: shown() != old, 20, "the new certificate")
        standing.sendall(b"still here")
        assert hear(server, 10) == b"still here"


def test_a_key_of_another_certificate_is_a_mistake_of_the_configuration(
    authority: Authority, target: Target
) -> None:
    transport = f"tls;cert={authority.folder}/server.crt;key={authority.folder}/other.key"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "qanat", "relay"),
            *("-l", "127.0.0.1:0", "-r", target.address, "--listen-transport", transport),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert "other.key" in done.stderr
    assert "does not belong to the certificate" in done.stderr
    assert "Traceback" not in done.stderr
