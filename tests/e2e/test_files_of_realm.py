"""Files as realm's users have them, run as they are but for their addresses."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.certificates import Authority
from tests.support.peers import Target, flow, talk

FILES = Path(__file__).parents[1] / "config" / "files"

pytestmark = pytest.mark.timeout(60)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def moved(text: str, target: Target) -> tuple[str, dict[int, int]]:
    """The file with every address on loopback, and the new ports by the old ones.

    Names and addresses elsewhere are the target, unless another endpoint of the file is meant.
    """
    old = [int(port) for port in re.findall(r'listen = "[^"]*:(\d+)"', text)]
    ports = dict(zip(old, free_ports(len(old)), strict=True))

    def remote(found: re.Match[str]) -> str:
        return f'"127.0.0.1:{ports.get(int(found[1]), target.port)}"'

    text = re.sub(r'"(?:[\w.-]+\.(?:com|\d+)|\[[0-9a-f:]+\]):(\d+)"', remote, text)
    return text, ports


@pytest.mark.parametrize(
    ("name", "ways_in"),
    [
        ("basic.toml", (5000, 10000)),
        ("balance.toml", (5000, 5001)),
        ("ws.toml", (10000,)),
        ("tls.toml", (10000, 10001)),
        ("wss.toml", (10000,)),
    ],
)
def test_bytes_go_there_and_back(
    start: Start, target: Target, tmp_path: Path, name: str, ways_in: tuple[int, ...]
) -> None:
    authority = Authority(tmp_path / "authority")
    cert, key = authority.issue("a.example", "DNS:a.example")
    text, ports = moved((FILES / name).read_text(), target)
    text = text.replace("/etc/certs/a.example.pem", str(cert))
    text = text.replace("/etc/certs/a.example.key", str(key))
    file = tmp_path / name
    file.write_text(text)
    start("-c", str(file), SSL_CERT_FILE=str(authority.cert))
    for way in ways_in:
        with flow(("127.0.0.1", ports[way]), target) as (client, server):
            talk(client, server)
