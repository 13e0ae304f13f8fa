"""The engine's counters, typed. Does no I/O.

Counters only grow while an endpoint lives; gauges are marked. Whatever the engine does not report
is 0, and what it reports beyond these fields is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

__all__ = [
    "ConnectTimes",
    "DescriptorStats",
    "EndpointStats",
    "EventStats",
    "HookStats",
    "RemoteStats",
    "ResolverStats",
    "Stats",
    "TcpStats",
    "UdpStats",
    "WorkerStats",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectTimes:
    """Histogram of the seconds from accept to connected."""

    bounds: tuple[float, ...] = ()
    """Upper bounds of the buckets, in seconds."""
    counts: tuple[int, ...] = ()
    """One more than ``bounds``, not cumulative; the last is what lies above."""
    sum: float = 0.0
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpStats:
    open: int = 0
    """Gauge."""
    total: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    ended: Mapping[str, int] = field(default_factory=dict)
    """Flows by the reason for which they ended."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Connections that never became a flow, by reason."""
    accept_errors: int = 0
    connect: ConnectTimes = field(default_factory=ConnectTimes)


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpStats:
    open: int = 0
    """Gauge."""
    total: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    packets_up: int = 0
    packets_down: int = 0
    ended: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Datagrams that were not passed on, by reason."""
    icmp_errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteStats:
    """How one remote of an endpoint stands that spreads flows or watches their targets."""

    target: str
    state: str = "unknown"
    """``up``, ``down``, ``recovering`` (gets a growing share) or ``unknown`` (not yet tried)."""
    reason: str | None = None
    """Why it was last taken down, until it is wholly back."""
    since: float = 0.0
    """Unix time of the last change of the state."""
    open: int = 0
    """Gauge: flows that are there or on their way there."""
    total: int = 0
    fails: int = 0
    """Flows that could not reach it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookStats:
    """What became of the decisions about an endpoint's flows."""

    pending: int = 0
    """Gauge."""
    allowed: int = 0
    refused: int = 0
    failed: int = 0
    """Exceptions, time-outs, and flows for which too many decisions were pending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStats:
    endpoint: str
    handle: int = 0
    """An endpoint that was bound anew is here twice until the last flow of the old one ended."""
    closed: bool = False
    """Takes no new flows; it goes when its last flow has ended and its counters were read."""
    tcp: TcpStats = field(default_factory=TcpStats)
    udp: UdpStats = field(default_factory=UdpStats)
    remotes: tuple[RemoteStats, ...] = ()
    """Empty for an endpoint that neither balances nor watches the health of its targets."""
    hook: HookStats | None = None
    """None for an endpoint without a hook."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStats:
    """One thread of the engine; shared by all relays of the process."""

    id: int = 0
    flows: int = 0
    """Gauge."""
    loop_lag_max: float = 0.0
    """Longest that the loop was busy in one go, in seconds."""
    loops: int = 0
    busy_seconds: float = 0.0
    pipes_lent: int = 0
    pipes_idle: int = 0
    pipe_bytes: int = 0
    """Gauges of the splice pipes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverStats:
    lookups: int = 0
    cached: int = 0
    failed: int = 0
    stale: int = 0
    """Answers given after their time because no name server answered."""
    entries: int = 0
    inflight: int = 0
    """Gauges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStats:
    lost: int = 0
    """Records of ended flows dropped because nobody fetched them in time."""
    queued: int = 0
    """Gauge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorStats:
    open: int = 0
    limit: int = 0
    """Gauges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A snapshot of everything counted for one relay."""

    workers: tuple[WorkerStats, ...] = ()
    endpoints: tuple[EndpointStats, ...] = ()
    resolver: ResolverStats = field(default_factory=ResolverStats)
    events: EventStats = field(default_factory=EventStats)
    descriptors: DescriptorStats = field(default_factory=DescriptorStats)

    @property
    def open(self) -> int:
        """Flows alive, TCP and UDP."""
        return sum(entry.tcp.open + entry.udp.open for entry in self.endpoints)

    @property
    def total(self) -> int:
        """Flows that ever were on the endpoints listed."""
        return sum(entry.tcp.total + entry.udp.total for entry in self.endpoints)

    @property
    def bytes_up(self) -> int:
        return sum(entry.tcp.bytes_up + entry.udp.bytes_up for entry in self.endpoints)

    @property
    def bytes_down(self) -> int:
        return sum(entry.tcp.bytes_down + entry.udp.bytes_down for entry in self.endpoints)

    def endpoint(self, id: str) -> EndpointStats:
        """The counters of one endpoint (its latest entry). Raises KeyError if there is none."""
        for entry in reversed(self.endpoints):
            if entry.endpoint == id:
                return entry
        raise KeyError(id)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Stats:
        """From the engine's JSON."""
        return cls(
            workers=tuple(_flat(WorkerStats, entry) for entry in record.get("workers") or ()),
            endpoints=tuple(_endpoint(entry) for entry in record.get("endpoints") or ()),
            resolver=_flat(ResolverStats, record.get("resolver")),
            events=_flat(EventStats, record.get("events")),
            descriptors=_flat(DescriptorStats, record.get("descriptors")),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values by the same names, ready for JSON."""
        return asdict(self)


def _endpoint(record: Mapping[str, Any]) -> EndpointStats:
    tcp = dict(record.get("tcp") or {})
    connect = tcp.pop("connect", None) or {}
    return EndpointStats(
        endpoint=str(record.get("endpoint", "")),
        handle=int(record.get("handle", 0)),
        closed=bool(record.get("closed", False)),
        tcp=_flat(TcpStats, tcp | {"connect": _connect(connect)}),
        udp=_flat(UdpStats, record.get("udp")),
        remotes=tuple(_remote(entry) for entry in record.get("remotes") or ()),
        hook=_flat(HookStats, record["hook"]) if record.get("hook") else None,
    )


def _remote(record: Mapping[str, Any]) -> RemoteStats:
    return RemoteStats(
        target=str(record.get("target", "")),
        state=str(record.get("state", "unknown")),
        reason=record.get("reason"),
        since=record.get("since") or 0.0,
        open=record.get("open") or 0,
        total=record.get("total") or 0,
        fails=record.get("fails") or 0,
    )


def _connect(record: Mapping[str, Any]) -> ConnectTimes:
    bounds: Sequence[float] = record.get("bounds") or ()
    counts: Sequence[int] = record.get("counts") or ()
    return ConnectTimes(
        bounds=tuple(bounds),
        counts=tuple(counts),
        sum=record.get("sum") or 0.0,
        count=record.get("count") or 0,
    )


_Counters = TypeVar(
    "_Counters",
    TcpStats,
    UdpStats,
    HookStats,
    WorkerStats,
    ResolverStats,
    EventStats,
    DescriptorStats,
)


def _flat(kind: type[_Counters], record: Mapping[str, Any] | None) -> _Counters:
    names = {entry.name for entry in fields(kind)}
    known = {name: value for name, value in (record or {}).items() if name in names}
    return kind(**{name: value for name, value in known.items() if value is not None})
