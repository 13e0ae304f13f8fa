from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from qanat.observe.flow import Flow

LIVE: dict[str, Any] = {
    "id": 1099511627777,
    "group": 1,
    "endpoint": "0.0.0.0:5000",
    "protocol": "tcp",
    "client": "192.0.2.1:40000",
    "listener": "192.0.2.2:5000",
    "target": "example.com:80",
    "peer": None,
    "source": None,
    "state": "connecting",
    "started": 1790000000.5,
    "duration": 0.25,
    "connect": None,
    "idle": 0.125,
    "bytes_up": 1,
    "bytes_down": 2,
    "packets_up": 0,
    "packets_down": 0,
    "worker": 1,
}
ENDED = LIVE | {
    "kind": "ended",
    "state": "ended",
    "reason": "connect_refused",
    "detail": "Connection refused (os error 111)",
}


def test_every_field_of_a_record_arrives() -> None:
    flow = Flow.from_record(LIVE)
    named = {name: value for name, value in LIVE.items() if name != "group"}
    told = flow.to_dict()
    assert {name: told.pop(name) for name in named} == named
    # What a live flow without TLS has nothing to say about.
    assert set(told.values()) == {None}
    assert not flow.ended
    assert flow.started_at == datetime(2026, 9, 21, 14, 13, 20, 500_000, tzinfo=UTC)


def test_what_tls_handshakes_came_to_arrives() -> None:
    facts = {
        "tls": "TLSv1.3",
        "cipher": "TLS13_AES_128_GCM_SHA256",
        "sni": "example.com",
        "alpn": "h2",
        "client_certificate": "CN=alice,O=Example",
        "resumed": True,
        "target_tls": "TLSv1.2",
        "target_cipher": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "target_alpn": None,
        "target_resumed": False,
    }
    told = Flow.from_record(ENDED | facts).to_dict()
    assert {name: told[name] for name in facts} == facts


def test_an_ended_record_has_a_reason() -> None:
    flow = Flow.from_record(ENDED)
    assert flow.ended
    assert (flow.reason, flow.detail) == ("connect_refused", "Connection refused (os error 111)")


def test_a_flow_can_be_written_as_json() -> None:
    flow = Flow.from_record(ENDED)
    assert Flow.from_record(json.loads(json.dumps(flow.to_dict()))) == flow


@given(st.sets(st.sampled_from(sorted(ENDED))), st.booleans())
def test_missing_and_unknown_fields_do_no_harm(left_out: set[str], more: bool) -> None:
    record = {name: value for name, value in ENDED.items() if name not in left_out}
    flow = Flow.from_record(record | ({"novelty": 1} if more else {}))
    for name in ENDED.keys() - left_out - {"group", "kind"}:
        assert getattr(flow, name) == ENDED[name]


def test_an_ended_record_without_a_state_is_ended_all_the_same() -> None:
    record = {name: value for name, value in ENDED.items() if name != "state"}
    assert Flow.from_record(record).ended
