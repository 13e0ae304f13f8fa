"""The text of a scrape, and that the documentation names what is served."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from qanat.observe.metrics import CATALOGUE, ProgramCounters, render
from qanat.observe.reasons import DROPPED, ENDED, REFUSED

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"

STATS: dict[str, Any] = {
    "workers": [
        {
            "id": 0,
            "flows": 3,
            "loop_lag_max": 0.002,
            "loops": 10,
            "busy_seconds": 1.5,
            "pipes_lent": 1,
            "pipes_idle": 2,
            "pipe_bytes": 3145728,
        }
    ],
    "endpoints": [
        {
            "endpoint": 'a"b',
            "handle": 1,
            "tcp": {
                "open": 1,
                "total": 5,
                "bytes_up": 10,
                "bytes_down": 20,
                "ended": {"client_closed": 3, "killed": 1},
                "refused": {"connections": 7},
                "accept_errors": 2,
                "connect": {"bounds": [0.001, 0.01], "counts": [1, 2, 3], "sum": 9.5, "count": 6},
            },
            "udp": {
                "open": 2,
                "total": 4,
                "bytes_up": 100,
                "bytes_down": 200,
                "packets_up": 8,
                "packets_down": 9,
                "ended": {"expired": 2},
                "dropped": {"too_big": 1},
                "icmp_errors": 6,
            },
            "remotes": [
                {
                    "target": "h:1",
                    "state": "down",
                    "reason": "refused",
                    "since": 1700000000.5,
                    "open": 1,
                    "total": 4,
                    "fails": 3,
                },
                {
                    "target": "h:2",
                    "state": "recovering",
                    "reason": "refused",
                    "since": 1700000001.5,
                    "open": 2,
                    "total": 6,
                    "fails": 0,
                },
            ],
            "hook": {"pending": 1, "allowed": 11, "refused": 12, "failed": 13},
        },
        {"endpoint": "quiet", "handle": 2, "tcp": None, "udp": None},
    ],
    "resolver": {"lookups": 5, "cached": 4, "failed": 1, "stale": 0, "entries": 3, "inflight": 0},
    "events": {"lost": 1, "queued": 2},
    "descriptors": {"open": 33, "limit": 1024},
}


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_counter_is_served() -> None:
    text = render(STATS, ProgramCounters("1.2", {"done": 4, "failed": 1}, 3)).decode()
    found = samples(text)

    def value(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]

    tcp, udp = {"endpoint": 'a"b', "protocol": "tcp"}, {"endpoint": 'a"b', "protocol": "udp"}
    name = {"endpoint": 'a"b'}
    assert value("qanat_build_info", version="1.2") == 1
    assert value("qanat_flows_open", **tcp) == 1
    assert value("qanat_flows_open", **udp) == 2
    assert value("qanat_flows_total", **tcp) == 5
    assert value("qanat_flows_ended_total", **tcp, reason="killed") == 1
    assert value("qanat_flows_ended_total", **udp, reason="expired") == 2
    assert value("qanat_bytes_total", **tcp, direction="down") == 20
    assert value("qanat_bytes_total", **udp, direction="up") == 100
    assert value("qanat_packets_total", **name, direction="down") == 9
    assert value("qanat_refused_total", **name, reason="connections") == 7
    assert value("qanat_datagrams_dropped_total", **name, reason="too_big") == 1
    assert value("qanat_icmp_errors_total", **name) == 6
    assert value("qanat_accept_errors_total", **name) == 2
    assert value("qanat_connect_seconds_bucket", **name, le="0.001") == 1
    assert value("qanat_connect_seconds_bucket", **name, le="0.01") == 3
    assert value("qanat_connect_seconds_bucket", **name, le="+Inf") == 6
    assert value("qanat_connect_seconds_count", **name) == 6
    assert value("qanat_connect_seconds_sum", **name) == 9.5
    for target, values in {
        "h:1": (0, 1700000000.5, 1, 4, 3),
        "h:2": (1, 1700000001.5, 2, 6, 0),
    }.items():
        remote = name | {"target": target}
        assert value("qanat_remote_up", **remote) == values[0]
        assert value("qanat_remote_changed_timestamp_seconds", **remote) == values[1]
        assert value("qanat_remote_flows_open", **remote) == values[2]
        assert value("qanat_remote_flows_total", **remote) == values[3]
        assert value("qanat_remote_failures_total", **remote) == values[4]
    for outcome, count in {"allowed": 11, "refused": 12, "failed": 13}.items():
        assert value("qanat_hook_decisions_total", **name, outcome=outcome) == count
    assert value("qanat_hook_pending", **name) == 1
    assert value("qanat_dns_cached_total") == 4
    assert value("qanat_dns_entries") == 3
    assert value("qanat_worker_loop_lag_seconds", worker="0") == 0.002
    assert value("qanat_worker_busy_seconds_total", worker="0") == 1.5
    assert value("qanat_pipes", worker="0", state="idle") == 2
    assert value("qanat_pipe_bytes", worker="0") == 3145728
    assert value("qanat_events_lost_total") == 1
    assert value("qanat_descriptors_limit") == 1024
    assert value("qanat_reloads_total", result="done") == 4
    assert value("qanat_log_lines_lost_total") == 3
    assert found["process_start_time_seconds", ()] > 0


def test_users_are_served_where_a_program_knows_them() -> None:
    user = {"user": "jo", "open": 1, "total": 5, "refused": 2, "bytes_up": 7, "bytes_down": 9}
    found = samples(render({**STATS, "users": [user]}, ProgramCounters()).decode())
    jo = ("user", "jo")
    assert found["qanat_user_flows_open", (jo,)] == 1
    assert found["qanat_user_flows_total", (jo,)] == 5
    assert found["qanat_user_refused_total", (jo,)] == 2
    assert found["qanat_user_bytes_total", (("direction", "up"), jo)] == 7
    assert found["qanat_user_bytes_total", (("direction", "down"), jo)] == 9


def test_an_endpoint_on_two_handles_is_served_as_one() -> None:
    twice = {**STATS, "endpoints": [STATS["endpoints"][0], {**STATS["endpoints"][0], "handle": 9}]}
    text = render(twice, ProgramCounters()).decode()
    lines = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines)), "the same labels twice spoil a scrape"
    found = samples(text)
    name = ("endpoint", 'a"b')
    assert found["qanat_flows_total", (name, ("protocol", "tcp"))] == 10
    assert found["qanat_refused_total", (name, ("reason", "connections"))] == 14
    assert found["qanat_connect_seconds_bucket", (name, ("le", "0.01"))] == 6
    assert found["qanat_connect_seconds_sum", (name,)] == 19.0
    # The new one goes on from what the old one counted.
    assert found["qanat_hook_decisions_total", (name, ("outcome", "failed"))] == 13


def test_a_remote_that_is_listed_twice_is_served_once() -> None:
    one = STATS["endpoints"][0]["remotes"]
    twice = [*one, {**one[0], "state": "up"}]
    stats = {**STATS, "endpoints": [{**STATS["endpoints"][0], "remotes": twice}]}
    found = samples(render(stats, ProgramCounters()).decode())
    labels = (("endpoint", 'a"b'), ("target", "h:1"))
    assert found["qanat_remote_up", labels] == 1
    assert found["qanat_remote_flows_total", labels] == 8


def test_a_protocol_that_was_never_used_is_left_out() -> None:
    endpoint = json.loads(json.dumps(STATS["endpoints"][0]))
    for name in ("open", "total", "bytes_up", "bytes_down", "packets_up", "packets_down"):
        endpoint["udp"][name] = 0
    endpoint["udp"] |= {"ended": {}, "dropped": {}, "icmp_errors": 0}
    text = render({**STATS, "endpoints": [endpoint]}, ProgramCounters()).decode()
    assert 'protocol="udp"' not in text
    assert 'protocol="tcp"' in text


def test_the_catalogue_is_what_is_served() -> None:
    text = render(STATS, ProgramCounters()).decode()
    for name, what in CATALOGUE.items():
        assert f"# TYPE {name} {what.kind}\n" in text
    names = {m.removesuffix("_created") for m in re.findall(r"^# TYPE (qanat_\w+)", text, re.M)}
    assert names == set(CATALOGUE)


def test_an_idle_relay_without_endpoints_can_be_scraped() -> None:
    assert b"qanat_dns_entries 0.0" in render({}, ProgramCounters())


def test_the_page_describes_the_catalogue_and_nothing_else() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, what in CATALOGUE.items():
        labels = ", ".join(f"`{label}`" for label in what.labels) or "-"
        assert f"| `{name}` | {what.kind} | {labels} | {what.text} |" in text
    assert set(re.findall(r"`(qanat_\w+)`", text)) <= set(CATALOGUE)


def test_the_page_lists_every_reason() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for words in (ENDED, REFUSED, DROPPED):
        for word, meaning in words.items():
            assert f"| `{word}` | {meaning} |" in text


def test_the_client_library_is_not_imported_before_the_first_scrape() -> None:
    code = "import sys, qanat.observe.metrics; sys.exit('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], timeout=20, check=False)
    assert done.returncode == 0
