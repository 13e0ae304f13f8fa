"""The line of an ended flow."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from qanat.observe.access import FIELDS, TLS_FIELDS, write_access
from qanat.observe.logs import ACCESS, JsonFormatter, TextFormatter


@dataclass(frozen=True)
class Ended:
    id: int = 1099511627777
    endpoint: str = "0.0.0.0:5000"
    protocol: str = "tcp"
    client: str = "192.0.2.7:4711"
    user: str | None = None
    target: str = "example.com:80"
    peer: str | None = "192.0.2.80:80"
    bytes_up: int = 10
    bytes_down: int = 2_000
    packets_up: int = 0
    packets_down: int = 0
    duration: float = 1.25
    connect: float | None = 0.0125
    reason: str | None = "client_closed"
    detail: str | None = None
    tls: str | None = None
    sni: str | None = None
    alpn: str | None = None
    client_certificate: str | None = None
    target_tls: str | None = None
    target_alpn: str | None = None


def record_of(flow: Ended, caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    with caplog.at_level(logging.INFO, ACCESS):
        write_access(flow)
    (record,) = caplog.records
    return record


def test_the_readable_line(caplog: pytest.LogCaptureFixture) -> None:
    text = TextFormatter().format(record_of(Ended(), caplog))
    assert text.endswith(
        "[qanat.access][INFO]flow ended id=1099511627777 endpoint=0.0.0.0:5000 protocol=tcp"
        " client=192.0.2.7:4711 target=example.com:80 peer=192.0.2.80:80 bytes_up=10"
        " bytes_down=2000 duration=1.250000 connect=0.012500 reason=client_closed"
    )


def test_the_user_is_named_when_there_is_one(caplog: pytest.LogCaptureFixture) -> None:
    text = TextFormatter().format(record_of(Ended(user="alice\x1b[2J"), caplog))
    assert text.endswith(r'reason=client_closed user="alice\u001b[2J"')


def test_a_detail_is_quoted(caplog: pytest.LogCaptureFixture) -> None:
    flow = Ended(reason="connect_refused", peer=None, detail='refused "twice"\n')
    text = TextFormatter().format(record_of(flow, caplog))
    assert text.endswith(r'reason=connect_refused detail="refused \"twice\"\n"')
    assert " peer=" not in text


def test_a_flow_with_tls_tells_what_was_agreed_on(caplog: pytest.LogCaptureFixture) -> None:
    flow = Ended(tls="TLSv1.3", sni="example.com", client_certificate="CN=alice,O=Example Ltd")
    record = record_of(flow, caplog)
    assert (
        TextFormatter()
        .format(record)
        .endswith(' tls=TLSv1.3 sni=example.com client_certificate="CN=alice,O=Example Ltd"')
    )
    assert set(TLS_FIELDS) < set(json.loads(JsonFormatter().format(record)))


def test_only_tls_towards_the_target_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    record = record_of(Ended(target_tls="TLSv1.2", target_alpn="h2"), caplog)
    assert TextFormatter().format(record).endswith(" target_tls=TLSv1.2 target_alpn=h2")


def test_the_json_line_of_an_association_has_every_field(caplog: pytest.LogCaptureFixture) -> None:
    told = json.loads(JsonFormatter().format(record_of(Ended(protocol="udp"), caplog)))
    assert set(FIELDS) < set(told)
    assert told["detail"] is None
    assert told["duration"] == 1.25


def test_the_fields_are_documented() -> None:
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    text = page.read_text()
    assert [name for name in FIELDS + TLS_FIELDS if f"`{name}`" not in text] == []
