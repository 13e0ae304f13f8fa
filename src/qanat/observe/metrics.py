"""Prometheus text from the engine's counters.

Reads a snapshot in the shape of ``qanat.observe.stats`` as plain mappings; knows no relay. The
client library is imported at the first scrape, since starting must be fast and many never scrape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )

__all__ = ["CATALOGUE", "CONTENT_TYPE", "Described", "ProgramCounters", "render"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Described:
    """One metric as it is documented and served."""

    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    text: str


CATALOGUE: Final[Mapping[str, Described]] = {
    "qanat_build_info": Described("gauge", ("version",), "Always 1; the version is the label."),
    "qanat_flows_open": Described("gauge", ("endpoint", "protocol"), "Flows that are alive."),
    "qanat_flows_total": Described("counter", ("endpoint", "protocol"), "Flows that began."),
    "qanat_flows_ended_total": Described(
        "counter", ("endpoint", "protocol", "reason"), "Flows that ended, by reason."
    ),
    "qanat_bytes_total": Described(
        "counter",
        ("endpoint", "protocol", "direction"),
        "Payload bytes passed on; up is from client to target.",
    ),
    "qanat_packets_total": Described(
        "counter", ("endpoint", "direction"), "UDP datagrams passed on."
    ),
    "qanat_refused_total": Described(
        "counter", ("endpoint", "reason"), "Connections closed before they became flows."
    ),
    "qanat_datagrams_dropped_total": Described(
        "counter", ("endpoint", "reason"), "UDP datagrams not passed on."
    ),
    "qanat_icmp_errors_total": Described(
        "counter", ("endpoint",), "Errors the network reported for UDP datagrams."
    ),
    "qanat_accept_errors_total": Described(
        "counter", ("endpoint",), "Times that accepting a connection failed."
    ),
    "qanat_connect_seconds": Described(
        "histogram",
        ("endpoint",),
        "From accepting a client to being connected to the target, name look-up included.",
    ),
    "qanat_remote_up": Described(
        "gauge",
        ("endpoint", "target"),
        "Whether flows are sent to a remote of an endpoint that balances or fails over: 1, or 0 "
        "while it is down.",
    ),
    "qanat_remote_changed_timestamp_seconds": Described(
        "gauge", ("endpoint", "target"), "Unix time at which the remote's state last changed."
    ),
    "qanat_remote_flows_open": Described(
        "gauge", ("endpoint", "target"), "Flows at the remote or on their way there."
    ),
    "qanat_remote_flows_total": Described(
        "counter", ("endpoint", "target"), "Flows that were sent to the remote."
    ),
    "qanat_remote_failures_total": Described(
        "counter", ("endpoint", "target"), "Flows that could not reach the remote."
    ),
    "qanat_hook_decisions_total": Described(
        "counter",
        ("endpoint", "outcome"),
        "Decisions of the endpoint's hook: allowed, refused or failed.",
    ),
    "qanat_hook_pending": Described("gauge", ("endpoint",), "Flows that wait for a decision."),
    "qanat_user_flows_open": Described("gauge", ("user",), "Connections that a user has open."),
    "qanat_user_flows_total": Described(
        "counter", ("user",), "Connections and single requests made for a user."
    ),
    "qanat_user_refused_total": Described(
        "counter", ("user",), "Connections refused because the user had all that is allowed."
    ),
    "qanat_user_bytes_total": Described(
        "counter", ("user", "direction"), "Payload bytes passed on for a user."
    ),
    "qanat_dns_lookups_total": Described("counter", (), "Names asked for, cached or not."),
    "qanat_dns_cached_total": Described("counter", (), "Look-ups answered from the cache."),
    "qanat_dns_failed_total": Described("counter", (), "Look-ups that gave no address."),
    "qanat_dns_stale_total": Described(
        "counter", (), "Look-ups answered by an outdated entry because no name server answered."
    ),
    "qanat_dns_entries": Described("gauge", (), "Names in the cache."),
    "qanat_dns_inflight": Described("gauge", (), "Look-ups waiting for a name server."),
    "qanat_worker_flows": Described("gauge", ("worker",), "Flows carried by a worker thread."),
    "qanat_worker_loop_lag_seconds": Described(
        "gauge", ("worker",), "Longest time lately that a worker's loop was late."
    ),
    "qanat_worker_loops_total": Described("counter", ("worker",), "Rounds of a worker's loop."),
    "qanat_worker_busy_seconds_total": Described(
        "counter", ("worker",), "Time a worker spent working rather than waiting."
    ),
    "qanat_pipes": Described(
        "gauge", ("worker", "state"), "Splice pipes, lent to a flow or idle in the pool."
    ),
    "qanat_pipe_bytes": Described("gauge", ("worker",), "Capacity of all splice pipes."),
    "qanat_events_lost_total": Described(
        "counter", (), "Records of ended flows dropped because they were not fetched in time."
    ),
    "qanat_events_queued": Described("gauge", (), "Events waiting to be fetched."),
    "qanat_descriptors_open": Described("gauge", (), "File descriptors in use."),
    "qanat_descriptors_limit": Described("gauge", (), "File descriptors allowed."),
    "qanat_reloads_total": Described("counter", ("result",), "Reloads; result is done or failed."),
    "qanat_log_lines_lost_total": Described("counter", (), "Log lines that could not be written."),
}
"""Every metric of ours. Beside them stand the ``process_`` metrics of the client library."""


@dataclass(slots=True)
class ProgramCounters:
    """What the program counts beside the engine."""

    version: str = ""
    reloads: dict[str, int] = field(default_factory=lambda: {"done": 0, "failed": 0})
    log_lines_lost: int = 0


def render(stats: Mapping[str, Any], program: ProgramCounters) -> bytes:
    """The text of one scrape. Takes a while for thousands of endpoints: call it in a thread."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(stats, program))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Snapshot:
    """Presents one set of counters as a collector."""

    def __init__(self, stats: Mapping[str, Any], program: ProgramCounters) -> None:
        self._stats = stats
        self._program = program

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        families = _Families()
        self._of_program(families)
        self._of_whole(families)
        for worker in self._stats.get("workers", ()):
            _of_worker(families, worker)
        for endpoint in _by_name(self._stats.get("endpoints", ())):
            _of_endpoint(families, endpoint)
            _of_remotes(families, endpoint)
            _of_hook(families, endpoint)
        for user in self._stats.get("users", ()):
            _of_user(families, user)
        yield from families.all()

    def _of_program(self, families: _Families) -> None:
        families.add("qanat_build_info", 1, self._program.version)
        for result, count in self._program.reloads.items():
            families.add("qanat_reloads_total", count, result)
        families.add("qanat_log_lines_lost_total", self._program.log_lines_lost)

    def _of_whole(self, families: _Families) -> None:
        resolver = self._stats.get("resolver", {})
        for name in ("lookups", "cached", "failed", "stale"):
            families.add(f"qanat_dns_{name}_total", resolver.get(name, 0))
        for name in ("entries", "inflight"):
            families.add(f"qanat_dns_{name}", resolver.get(name, 0))
        events = self._stats.get("events", {})
        families.add("qanat_events_lost_total", events.get("lost", 0))
        families.add("qanat_events_queued", events.get("queued", 0))
        descriptors = self._stats.get("descriptors", {})
        families.add("qanat_descriptors_open", descriptors.get("open", 0))
        families.add("qanat_descriptors_limit", descriptors.get("limit", 0))


def _by_name(entries: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """One entry for each name: an endpoint that was bound anew is counted on two handles until the
    flows of the old one have ended, and a scrape may not have the same labels twice."""
    merged: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        name = entry["endpoint"]
        merged[name] = _sum(merged[name], entry) if name in merged else entry
    return merged.values()


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return {key: _sum_of(key, one.get(key), other.get(key)) for key in {**one, **other}}
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return [_sum(a, b) for a, b in zip(one, other, strict=False)]
    return one + other


def _sum_of(key: str, one: Any, other: Any) -> Any:
    # The latest knows of its remotes and its hook what those before it knew.
    if one is None or other is None or key in ("endpoint", "handle", "bounds", "remotes", "hook"):
        return other if one is None else one
    return _sum(one, other)


def _used(side: Any) -> bool:
    """Whether anything was ever counted on one side of an endpoint."""
    if isinstance(side, Mapping):
        return any(_used(value) for key, value in side.items() if key != "bounds")
    if isinstance(side, (list, tuple)):
        return any(_used(value) for value in side)
    return bool(side)


def _of_worker(families: _Families, worker: Mapping[str, Any]) -> None:
    name = str(worker["id"])
    families.add("qanat_worker_flows", worker["flows"], name)
    families.add("qanat_worker_loop_lag_seconds", worker["loop_lag_max"], name)
    families.add("qanat_worker_loops_total", worker["loops"], name)
    families.add("qanat_worker_busy_seconds_total", worker["busy_seconds"], name)
    families.add("qanat_pipes", worker["pipes_lent"], name, "lent")
    families.add("qanat_pipes", worker["pipes_idle"], name, "idle")
    families.add("qanat_pipe_bytes", worker["pipe_bytes"], name)


def _of_endpoint(families: _Families, endpoint: Mapping[str, Any]) -> None:
    name = endpoint["endpoint"]
    # Most endpoints carry one protocol; zeros of the other would be half of every scrape.
    udp = endpoint.get("udp") if _used(endpoint.get("udp")) else None
    tcp = endpoint.get("tcp") if udp is None or _used(endpoint.get("tcp")) else None
    for protocol, side in (("tcp", tcp), ("udp", udp)):
        if not side:
            continue
        families.add("qanat_flows_open", side["open"], name, protocol)
        families.add("qanat_flows_total", side["total"], name, protocol)
        for reason, count in side["ended"].items():
            families.add("qanat_flows_ended_total", count, name, protocol, reason)
        for direction in ("up", "down"):
            families.add("qanat_bytes_total", side[f"bytes_{direction}"], name, protocol, direction)
    if tcp:
        for reason, count in tcp["refused"].items():
            families.add("qanat_refused_total", count, name, reason)
        families.add("qanat_accept_errors_total", tcp["accept_errors"], name)
        connect = tcp["connect"]
        families.add_histogram(
            "qanat_connect_seconds", connect["bounds"], connect["counts"], connect["sum"], name
        )
    if udp:
        for reason, count in udp["dropped"].items():
            families.add("qanat_datagrams_dropped_total", count, name, reason)
        families.add("qanat_icmp_errors_total", udp["icmp_errors"], name)
        for direction in ("up", "down"):
            families.add("qanat_packets_total", udp[f"packets_{direction}"], name, direction)


def _of_remotes(families: _Families, endpoint: Mapping[str, Any]) -> None:
    name = endpoint["endpoint"]
    merged: dict[str, list[float]] = {}
    for remote in endpoint.get("remotes") or ():
        # One that is listed twice is up if it is once.
        up = float(remote["state"] != "down")
        was_up, changed, open_, total, fails = merged.get(remote["target"], [0.0] * 5)
        merged[remote["target"]] = [
            max(up, was_up),
            max(remote["since"], changed),
            remote["open"] + open_,
            remote["total"] + total,
            remote["fails"] + fails,
        ]
    for target, values in merged.items():
        for metric, value in zip(_REMOTE_METRICS, values, strict=True):
            families.add(metric, value, name, target)


def _of_hook(families: _Families, endpoint: Mapping[str, Any]) -> None:
    hook = endpoint.get("hook")
    if not hook:
        return
    name = endpoint["endpoint"]
    for outcome in ("allowed", "refused", "failed"):
        families.add("qanat_hook_decisions_total", hook[outcome], name, outcome)
    families.add("qanat_hook_pending", hook["pending"], name)


def _of_user(families: _Families, user: Mapping[str, Any]) -> None:
    name = user["user"]
    families.add("qanat_user_flows_open", user["open"], name)
    families.add("qanat_user_flows_total", user["total"], name)
    families.add("qanat_user_refused_total", user["refused"], name)
    for direction in ("up", "down"):
        families.add("qanat_user_bytes_total", user[f"bytes_{direction}"], name, direction)


_REMOTE_METRICS: Final = (
    "qanat_remote_up",
    "qanat_remote_changed_timestamp_seconds",
    "qanat_remote_flows_open",
    "qanat_remote_flows_total",
    "qanat_remote_failures_total",
)


class _Families:
    """One family for each entry of the catalogue, filled from all sides, given out in order."""

    def __init__(self) -> None:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        self._plain: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        self._histograms: dict[str, HistogramMetricFamily] = {}
        for name, what in CATALOGUE.items():
            if what.kind == "counter":
                self._plain[name] = CounterMetricFamily(name, what.text, labels=what.labels)
            elif what.kind == "gauge":
                self._plain[name] = GaugeMetricFamily(name, what.text, labels=what.labels)
            else:
                self._histograms[name] = HistogramMetricFamily(name, what.text, labels=what.labels)

    def add(self, name: str, value: float, *labels: str) -> None:
        self._plain[name].add_metric(labels, value)

    def add_histogram(
        self, name: str, bounds: Sequence[float], counts: Sequence[int], total: float, *labels: str
    ) -> None:
        """``counts`` are those of each bucket alone, the last of what is above every bound."""
        buckets, below = [], 0
        for bound, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
            below += count
            buckets.append((bound, below))
        self._histograms[name].add_metric(labels, buckets, total)

    def all(self) -> Iterator[Metric]:
        for name in CATALOGUE:
            yield self._plain[name] if name in self._plain else self._histograms[name]
