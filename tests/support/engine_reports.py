"""A desk of the engine, and its reports for one event loop: just what a test needs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qanat._engine import Desk, Engine
from qanat.plan import LimitsPlan, to_json

__all__ = ["Reports", "desk_of_loop"]


class Reports:
    """Calls back for what was watched, and keeps nothing of the rest."""

    def __init__(self, engine: Engine, group: int) -> None:
        self.engine = engine
        self.group = group
        self.desk = Desk(engine, group)
        self.endpoint = self.desk.endpoint("socks", "")
        self._watched: dict[int, Callable[[str, str], None]] = {}

    def watch(self, handle: int, callback: Callable[[str, str], None], /) -> None:
        self._watched[handle] = callback

    def fetch(self) -> None:
        for handle, kind, text in self.desk.take():
            callback = self._watched.get(handle)
            if kind == "ended":
                self._watched.pop(handle, None)
            if callback is not None:
                callback(kind, text)

    def flows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.engine.flows(self.group))
        return rows

    def dropped(self, why: str) -> int:
        """Datagrams that went nowhere, by reason."""
        (row,) = json.loads(self.engine.stats(self.group))["endpoints"]
        count: int = (row["udp"] or {"dropped": {}})["dropped"].get(why, 0)
        return count


@contextmanager
def desk_of_loop(limits: LimitsPlan | None = None) -> Iterator[Reports]:
    """For the running loop; everything is closed on the way out."""
    loop = asyncio.get_running_loop()
    engine = Engine(1)
    reports = Reports(engine, engine.open_group(to_json(limits or LimitsPlan())))
    fd = reports.desk.fileno()
    loop.add_reader(fd, reports.fetch)
    try:
        yield reports
    finally:
        loop.remove_reader(fd)
        reports.desk.shutdown()
        engine.shutdown()
