"""The native engine's interface without sockets and threads, to be told what happens.

It keeps what it was asked, refuses what it is told to refuse, and gives the events it is fed.
"""

from __future__ import annotations

import itertools
import json
import queue
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FakeEngine", "FakeEngineError", "FakeModule"]


class FakeEngineError(Exception):
    def __init__(self, text: str, code: str, errno: int | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.errno = errno


Refusal = Callable[[str, dict[str, Any]], FakeEngineError | None]


@dataclass
class Held:
    """One bound endpoint."""

    plan: dict[str, Any]
    group: int
    tcp_fd: int
    udp_fd: int
    takeover: bool
    served: bool = False
    closed_with: float | None = None


@dataclass
class FakeEngine:
    workers: int = 0
    pipe_size: int = 0
    held: dict[int, Held] = field(default_factory=dict)
    limits: dict[int, dict[str, Any]] = field(default_factory=dict)
    watched: dict[int, bool] = field(default_factory=dict)
    live: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    refuse: Refusal = lambda _call, _plan: None
    ended: bool = False
    forked: bool = False
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._handles = itertools.count(1)
        self._groups = itertools.count(1)
        self._ports = itertools.count(40_000)
        self._events: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.workers = self.workers or 2

    def open_group(self, limits: str) -> int:
        group = next(self._groups)
        self.set_group_limits(group, limits)
        self.live[group] = []
        return group

    def set_group_limits(self, group: int, limits: str) -> None:
        self.limits[group] = json.loads(limits)

    def watch_group(self, group: int, ended: bool) -> None:
        self.watched[group] = ended

    def close_group(self, group: int) -> None:
        self.limits.pop(group)
        self.live.pop(group)
        for handle in [handle for handle, held in self.held.items() if held.group == group]:
            del self.held[handle]

    def bind(
        self, group: int, plan: str, tcp_fd: int = -1, udp_fd: int = -1, takeover: bool = False
    ) -> tuple[int, str | None, str | None]:
        wanted = json.loads(plan)
        self._check("bind", wanted)
        handle = next(self._handles)
        host, _, port = wanted["listen"].rpartition(":")
        address = f"{host}:{next(self._ports) if port == '0' else port}"
        self.held[handle] = Held(wanted, group, tcp_fd, udp_fd, takeover)
        self.calls.append(("bind", wanted["id"], takeover))
        return handle, wanted["tcp"] and address, wanted["udp"] and address

    def start(self, handles: list[int]) -> None:
        self.calls.append(("start", *(self.held[handle].plan["id"] for handle in handles)))
        for handle in handles:
            self.held[handle].served = True

    def update(self, handle: int, plan: str, drain: float = -1.0) -> None:
        wanted = json.loads(plan)
        self._check("update", wanted)
        self.held[handle].plan = wanted
        self.calls.append(("update", wanted["id"], drain))

    def close(self, handle: int, drain: float = -1.0) -> None:
        held = self.held.pop(handle)
        held.closed_with = drain
        self.calls.append(("close", held.plan["id"], drain))
        if drain == 0:
            self.live[held.group].clear()

    def flows(self, group: int) -> str:
        return json.dumps(self.live[group])

    def kill(self, group: int, flow: int) -> bool:
        before = len(self.live[group])
        self.live[group] = [record for record in self.live[group] if record["id"] != flow]
        return len(self.live[group]) < before

    def kill_all(self, group: int) -> int:
        killed, self.live[group] = self.live[group], []
        self.calls.append(("kill_all", len(killed)))
        if self.watched.get(group):
            for record in killed:
                self.happen(record | {"kind": "ended", "group": group, "reason": "shutdown"})
        return len(killed)

    def stats(self, group: int) -> str:
        return json.dumps(
            {
                "workers": [{"id": 0, "flows": len(self.live[group])}],
                "endpoints": [],
                "events": {"lost": 0, "queued": self._events.qsize()},
            }
        )

    def open_flows(self, group: int) -> int:
        return len(self.live[group])

    def flush_resolvers(self) -> None:
        self.calls.append(("flush_resolvers",))

    def next_events(self, timeout: float) -> list[str]:
        if self.ended and self._events.empty():
            raise FakeEngineError("the engine is closed", "closed")
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return []
        return [] if event is None else [event]

    def shutdown(self) -> None:
        self.ended = True
        self._events.put(None)

    def after_fork_in_child(self) -> None:
        self.forked = True

    # For tests

    def happen(self, event: dict[str, Any]) -> None:
        self._events.put(json.dumps(event))

    def carry(self, group: int, id: int, **record: Any) -> None:
        self.live[group].append({"id": id, "state": "open", "endpoint": "e"} | record)

    def ids(self) -> list[str]:
        """The endpoints that are served."""
        return [held.plan["id"] for held in self.held.values() if held.served]

    def _check(self, call: str, plan: dict[str, Any]) -> None:
        error = self.refuse(call, plan)
        if error is not None:
            raise error


class FakeModule:
    """In place of ``qanat._engine``; ``made`` are the engines in the order of their making."""

    EngineError = FakeEngineError

    def __init__(self) -> None:
        self.made: list[FakeEngine] = []
        self.refuse: Refusal = lambda _call, _plan: None
        """What engines made from now on refuse."""

    def Engine(self, workers: int = 0, pipe_size: int = 0) -> FakeEngine:
        self.made.append(FakeEngine(workers, pipe_size, refuse=self.refuse))
        return self.made[-1]
