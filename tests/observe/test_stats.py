from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from qanat.observe.stats import ConnectTimes, Stats

TCP: dict[str, Any] = {
    "open": 2,
    "total": 5,
    "bytes_up": 10,
    "bytes_down": 20,
    "ended": {"client_closed": 3},
    "refused": {"connections": 1},
    "accept_errors": 4,
    "connect": {"bounds": [0.001, 0.01], "counts": [1, 2, 0], "sum": 0.02, "count": 3},
}
UDP: dict[str, Any] = {
    "open": 1,
    "total": 2,
    "bytes_up": 100,
    "bytes_down": 200,
    "packets_up": 3,
    "packets_down": 4,
    "ended": {"expired": 1},
    "dropped": {"too_big": 1},
    "icmp_errors": 9,
}
REMOTE: dict[str, Any] = {
    "target": "h:1",
    "state": "down",
    "reason": "refused",
    "since": 1.5,
    "open": 1,
    "total": 2,
    "fails": 3,
}
HOOK = {"pending": 1, "allowed": 2, "refused": 3, "failed": 4}
RECORD: dict[str, Any] = {
    "workers": [
        {
            "id": 0,
            "flows": 3,
            "loop_lag_max": 0.1,
            "loops": 4,
            "busy_seconds": 0.5,
            "pipes_lent": 1,
            "pipes_idle": 2,
            "pipe_bytes": 65536,
        }
    ],
    "endpoints": [
        {
            "endpoint": "a",
            "handle": 1,
            "closed": True,
            "tcp": TCP,
            "udp": UDP,
            "remotes": [REMOTE],
            "hook": HOOK,
        },
        {
            "endpoint": "a",
            "handle": 2,
            "closed": False,
            "tcp": TCP | {"open": 0},
            "udp": UDP,
            "remotes": [],
            "hook": None,
        },
    ],
    "resolver": {
        "lookups": 1,
        "cached": 2,
        "failed": 3,
        "stale": 4,
        "entries": 5,
        "inflight": 6,
    },
    "events": {"lost": 1, "queued": 2},
    "descriptors": {"open": 30, "limit": 1024},
}


def test_every_counter_arrives() -> None:
    stats = Stats.from_record(RECORD)
    assert json.loads(json.dumps(stats.to_dict())) == RECORD
    assert stats.endpoints[0].tcp.connect == ConnectTimes(
        bounds=(0.001, 0.01), counts=(1, 2, 0), sum=0.02, count=3
    )


def test_sums_over_all_endpoints() -> None:
    stats = Stats.from_record(RECORD)
    assert (stats.open, stats.total) == (4, 14)
    assert (stats.bytes_up, stats.bytes_down) == (220, 440)


def test_an_endpoint_is_found_by_its_latest_entry() -> None:
    stats = Stats.from_record(RECORD)
    assert stats.endpoint("a").handle == 2
    with pytest.raises(KeyError, match="b"):
        stats.endpoint("b")


def test_what_is_missing_is_zero_and_what_is_unknown_is_ignored() -> None:
    stats = Stats.from_record(
        {
            "endpoints": [{"endpoint": "a", "tcp": {"novelty": 1, "open": 7}, "udp": None}],
            "resolver": None,
            "novelty": {},
        }
    )
    assert stats.endpoint("a").tcp.open == 7
    assert stats.endpoint("a").udp.packets_up == 0
    assert stats.resolver.lookups == stats.descriptors.limit == 0
    assert Stats.from_record({}) == Stats()


def test_the_remotes_of_an_endpoint_are_typed() -> None:
    record = {"endpoints": [{"endpoint": "a", "remotes": [REMOTE, {"target": "h:2"}]}]}
    first, second = Stats.from_record(record).endpoint("a").remotes
    assert asdict(first) == REMOTE
    assert (second.target, second.state, second.reason) == ("h:2", "unknown", None)
    assert Stats.from_record(RECORD).endpoint("a").remotes == ()
