import shutil
import socket
from pathlib import Path

import pytest

from benchmarks.failure import BenchmarkError
from benchmarks.peers import Certificate, Direct, Haproxy, Nginx, Qanat, free_port, run

TARGETS = {"echo": "127.0.0.1:1", "udp-echo": "127.0.0.1:2"}
LISTEN = {"echo": "127.0.0.1:3", "udp-echo": "127.0.0.1:4"}


def test_nginx_relays_both_protocols() -> None:
    text = Nginx(buffer="64k").configuration(TARGETS, LISTEN)
    assert "listen 127.0.0.1:3 reuseport backlog" in text
    assert "listen 127.0.0.1:4 reuseport udp" in text
    assert "proxy_pass 127.0.0.1:2;" in text
    assert "proxy_buffer_size 64k;" in text


def test_haproxy_asks_for_no_more_than_it_may_have() -> None:
    text = Haproxy().configuration({"echo": "127.0.0.1:1"}, LISTEN)
    assert "option splice-auto" in text
    assert "bind 127.0.0.1:3" in text
    assert 0 < Haproxy.most_connections() <= 7_000


def test_a_certificate_makes_them_terminate_tls() -> None:
    certificate = Certificate(Path("/c.pem"), Path("/k.pem"), Path("/both.pem"))
    targets, listen = {"echo": "127.0.0.1:1"}, {"echo": "127.0.0.1:3"}
    text = Nginx(certificate=certificate).configuration(targets, listen)
    assert "listen 127.0.0.1:3 ssl reuseport" in text
    assert "ssl_certificate_key /k.pem;" in text
    text = Haproxy(certificate=certificate).configuration(targets, listen)
    assert "bind 127.0.0.1:3 ssl crt /both.pem" in text
    assert "ssl" not in Haproxy().configuration(targets, listen)


def test_direct_is_the_target_itself() -> None:
    with Direct().relay(TARGETS) as relaying:
        assert relaying.addresses == TARGETS
        assert relaying.cpu_seconds() == 0


def test_a_relay_that_ends_at_once_is_reported_with_its_words() -> None:
    command = ["sh", "-c", "echo no such thing >&2; exit 3"]
    where = {"echo": f"127.0.0.1:{free_port()}"}
    with pytest.raises(BenchmarkError, match="ended with 3: no such thing"), run([command], where):
        pass


def test_an_engine_that_is_missing_or_slow_is_refused() -> None:
    lack = Qanat(python="/bin/false").missing()
    assert lack is not None
    assert "/bin/false" in lack


def test_free_port_is_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))


@pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not installed")
def test_a_process_is_waited_for_and_ended() -> None:
    from benchmarks.peers import Socat

    with Socat().relay({"echo": "127.0.0.1:9"}) as relaying:
        assert relaying.seconds_to_listen > 0
        assert relaying.pss_bytes() > 0
        host, _, port = relaying.addresses["echo"].rpartition(":")
    with socket.socket() as probe:
        assert probe.connect_ex((host, int(port))) != 0
