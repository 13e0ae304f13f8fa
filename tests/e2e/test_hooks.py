"""Hooks of a relay that runs as a program: decisions, failure, reload, and many at once."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.support.peers import Target, connect, flow, hear, is_reset, resets, talk
from tests.support.relay_process import RelayProcess


class Site:
    """Two targets, a file with hooks, and a configuration that the relay can read again."""

    def __init__(self, start: Start, directory: Path, stack: ExitStack) -> None:
        self._start = start
        self.rules = directory / "rules.py"
        self.file = directory / "relay.toml"
        self.one, self.two = stack.enter_context(Target()), stack.enter_context(Target())

    def configure(self, source: str, **keys: object) -> None:
        self.rules.write_text(source)
        settings = {"hook": str(self.rules), **keys}
        lines = [f"{key} = {value!r}".replace("'", '"') for key, value in settings.items()]
        self.file.write_text(
            f'[[endpoints]]\nlisten = "127.0.0.1:0"\nremote = "{self.one.address}"\n'
            f'extra_remotes = ["{self.two.address}"]\n' + "\n".join(lines) + "\n"
        )

    def run(self, source: str, **keys: object) -> RelayProcess:
        self.configure(source, **keys)
        return self._start("-c", str(self.file))


@pytest.fixture
def site(start: Start, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(start, tmp_path, stack)


def test_a_hook_chooses_by_the_first_bytes_and_takes_none(site: Site) -> None:
    relay = site.run(
        "import qanat\n"
        "def decide(arrival):\n"
        "    word = arrival.first_bytes\n"
        "    return {b'one': 0, b'two': 1, b'few': 2}.get(word, qanat.Refuse(f'said {word!r}'))\n",
        hook_first_bytes=3,
    )
    for word, target in ((b"one", site.one), (b"two", site.two)):
        with connect(relay.address) as client:
            client.sendall(word + b" and more")
            with target.accept() as server:
                assert hear(server, 12) == word + b" and more"
                talk(client, server)
    for word in (b"few", b"bad"):
        with connect(relay.address) as client:
            client.sendall(word)
            assert is_reset(client)
    relay.wait_ended(4)
    refused = {record["detail"] for record in relay.ended(reason="hook_refused")}
    assert refused == {"the hook chose remote 2 of 2", "said b'bad'"}
    hook = relay.stats()["endpoints"][0]["hook"]
    assert hook == {"pending": 0, "allowed": 2, "refused": 2, "failed": 0}


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_hook_that_raises_is_logged_and_the_plan_decides(site: Site, kind: str) -> None:
    relay = site.run(f"{kind} decide(arrival):\n    raise LookupError('no table')\n")
    for _ in range(5):
        assert resets(relay.address)
    records = relay.wait_ended(5)
    assert {(each["reason"], each["detail"]) for each in records} == {
        ("hook_failed", "LookupError: no table")
    }
    logged = [line for line in relay.notices() if "hook" in line["message"]]
    assert any("LookupError" in str(line) and "rules.py" in str(line) for line in logged)
    site.configure(site.rules.read_text(), hook_on_failure="allow")
    relay.reload()
    with flow(relay.address, site.one) as (client, server):
        talk(client, server)


def test_a_slow_hook_holds_up_nobody_else(site: Site) -> None:
    relay = site.run(
        "import asyncio\n"
        "async def decide(arrival):\n"
        "    if arrival.first_bytes == b's':\n"
        "        await asyncio.sleep(3600)\n",
        hook_first_bytes=1,
        hook_timeout=4,
    )
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(relay.address)) for _ in range(50)]
        for client in slow:
            client.sendall(b"s")
        relay.wait_state(*["deciding"] * 50)
        with connect(relay.address) as client:
            client.sendall(b"q")
            with site.one.accept() as server:
                assert hear(server, 1) == b"q"
                talk(client, server)
        for client in slow:
            assert is_reset(client)
    records = relay.wait_ended(51)
    late = [each for each in records if each["reason"] == "hook_failed"]
    assert len(late) == 50
    assert {each["detail"] for each in late} == {"the hook took too long"}
    assert all(3.5 < each["duration"] < 8 for each in late)


def test_a_reload_loads_what_changed_and_refuses_what_is_broken(site: Site) -> None:
    relay = site.run("def decide(arrival): return 0\n")
    with flow(relay.address, site.one) as (client, server):
        talk(client, server)
        site.rules.write_text("def decide(arrival): return 1\n")
        assert relay.reload()["changed"] == []
        with flow(relay.address, site.two) as (other, beside):
            talk(other, beside)
        site.rules.write_text("def decide(arrival) return 1\n")
        with pytest.raises(AssertionError, match="SyntaxError"):
            relay.reload()
        with flow(relay.address, site.two) as (other, beside):
            talk(other, beside)
        talk(client, server)


def test_a_relay_does_not_start_with_a_broken_hook(site: Site) -> None:
    with pytest.raises(AssertionError, match=r"(?s)ended early.*hook.*no table"):
        site.run("raise LookupError('no table')\n")


def test_many_clients_at_once_are_all_decided(site: Site) -> None:
    relay = site.run("def decide(arrival): return arrival.client_port % 2\n")
    threading.Thread(target=_greet, args=(site.one, b"0"), daemon=True).start()
    threading.Thread(target=_greet, args=(site.two, b"1"), daemon=True).start()
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(relay.address)) for _ in range(400)]
        for client in clients:
            port = client.getsockname()[1]
            assert client.recv(1) == str(port % 2).encode()
    relay.wait_ended(400)
    assert relay.stats()["endpoints"][0]["hook"]["allowed"] == 400


def test_a_relay_ends_while_hooks_hang(site: Site) -> None:
    relay = site.run(
        "import threading\ndef decide(arrival): threading.Event().wait()\n", hook_timeout=3600
    )
    with connect(relay.address), connect(relay.address):
        relay.wait_state("deciding", "deciding")
        relay.signal(signal.SIGINT)
        relay.signal(signal.SIGINT)
        assert relay.process.wait(20) == 0


def _greet(target: Target, word: bytes) -> None:
    while True:
        try:
            server: socket.socket = target.accept()
        except OSError:
            return
        with server:
            server.sendall(word)
