"""A control socket in front of made-up flows, for the tests of those who ask."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qanat.errors import QanatError
from qanat.observe.http import Response, Server
from qanat.process.control import Reloaded, control_routes
from qanat.process.control_socket import ControlSocket
from qanat.relay.difference import Report

__all__ = ["FakeRelay", "controlled", "flow"]


def flow(id: int, **given: Any) -> dict[str, Any]:
    """One live flow; what is not given is made up."""
    made: dict[str, Any] = {
        "id": id,
        "endpoint": "web",
        "protocol": "tcp",
        "client": f"192.0.2.7:{40_000 + id}",
        "listener": "0.0.0.0:80",
        "target": "example.com:80",
        "peer": "198.51.100.80:80",
        "source": "192.0.2.1:1",
        "state": "open",
        "started": 1_790_000_000.0 + id,
        "duration": 100.0,
        "connect": 0.01,
        "idle": 0.5,
        "bytes_up": 1000 * id,
        "bytes_down": 100_000 * id,
        "packets_up": 0,
        "packets_down": 0,
        "worker": 0,
        "reason": None,
        "detail": None,
    }
    return made | given


class FakeRelay:
    """What the control socket controls, without a relay."""

    def __init__(self) -> None:
        self.live = [flow(2), flow(1, endpoint="dns", protocol="udp", client="[2001:db8::1]:53")]
        self.killed: list[int] = []
        self.stopped: list[bool] = []
        self.outcome: Report | QanatError | Exception = Report(
            added=("new",), changed=("web",), rebound=("moved",), untouched=("a", "b")
        )
        self.warnings: tuple[str, ...] = ()
        self.grows = 0
        """Bytes that every flow gains between two looks."""
        self.ended = threading.Event()

    def flows(self) -> list[dict[str, Any]]:
        shown = [dict(entry) for entry in self.live]
        for entry in self.live:
            entry["bytes_down"] += self.grows
        return shown

    def endpoints(self) -> list[dict[str, Any]]:
        return [
            {
                "endpoint": "web",
                "listen": "0.0.0.0:0",
                "tcp_address": "0.0.0.0:80",
                "udp_address": None,
                "remotes": ["example.com:80"],
                "open": 1,
                "total": 5,
                "bytes_up": 2048,
                "bytes_down": 3,
                "refused": 4,
                "dropped": 0,
                "tcp": None,
                "udp": None,
                "health": [
                    {
                        "target": "example.com:80",
                        "state": "down",
                        "reason": "Connection refused",
                        "since": time.time() - 90,
                        "open": 1,
                        "total": 7,
                        "fails": 2,
                    }
                ],
            }
        ]

    def stats(self) -> dict[str, Any]:
        return {"workers": []}

    def about(self) -> dict[str, Any]:
        return {"version": "1.2", "pid": 1}

    def metrics(self) -> Response:
        return Response(body=b"qanat_up 1\n", content_type="text/plain; version=0.0.4")

    def kill(self, flow: int) -> bool:
        alive = any(entry["id"] == flow for entry in self.live)
        if alive:
            self.killed.append(flow)
        return alive

    async def reload(self) -> Reloaded:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return Reloaded(self.outcome, self.warnings)

    def stop(self, *, now: bool) -> int:
        self.stopped.append(now)
        self.ended.set()
        return len(self.live)


@contextmanager
def controlled(path: Path | None = None, relay: FakeRelay | None = None) -> Iterator[FakeRelay]:
    """Serve until left; the socket goes away when somebody asks the relay to stop."""
    relay = relay or FakeRelay()
    place = ControlSocket(path)
    started = threading.Event()

    async def serve() -> None:
        server = Server(control_routes(relay))
        await server.serve(place.listener)
        started.set()
        await asyncio.to_thread(relay.ended.wait)
        await server.close()
        place.remove()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(5)
        yield relay
    finally:
        relay.ended.set()
        thread.join(5)
        place.remove()
