"""A running relay as a service: reload, stop, and answers to whoever asks, in one event loop.

Everything here happens after the endpoints listen. The bytes are the engine's affair; this loop
decides and tells. Knows the relay, the logs and the service manager, and no command line.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from qanat.config.models import Config
from qanat.errors import ConfigError, Problem, QanatError
from qanat.observe.flow import Flow
from qanat.observe.http import Handler, Response, Server
from qanat.observe.logs import Logs, LogSettings
from qanat.observe.metrics import CONTENT_TYPE, ProgramCounters, render
from qanat.observe.notify import Notifier
from qanat.observe.status_page import status_page
from qanat.process.control import Reloaded, control_routes, metrics_routes
from qanat.process.listeners import Listeners
from qanat.process.signals import Signals
from qanat.process.watch import Fingerprint, watch
from qanat.relay.flow_log import FlowLog
from qanat.relay.relay import Relay, RunningEndpoint

__all__ = ["Rereading", "Serving"]

_logger = logging.getLogger("qanat.relay")

_STATUS_EVERY = 5.0
_FLOW = tuple(entry.name for entry in fields(Flow))
_AT_START_ONLY = ("workers", "pipe_page", "metrics", "control")
"""Keys that a reload can't carry out."""


@dataclass(frozen=True, slots=True)
class Rereading:
    """A configuration read again, ready to be put in force."""

    config: Config
    logs: LogSettings
    drain: float
    warnings: Sequence[Problem] = ()


class Serving:
    """From listening to the end: :meth:`run` gives the number of flows that had to be cut.

    ``reread`` is called in a thread and raises QanatError for what can't be used; a change of what
    is ``watched`` from ``known_files`` on makes a reload; ``ready`` is called once everything is
    served.
    """

    def __init__(
        self,
        relay: Relay,
        *,
        logs: Logs,
        flow_log: FlowLog,
        signals: Signals,
        notifier: Notifier,
        listeners: Listeners,
        version: str,
        reread: Callable[[], Rereading],
        drain: float,
        watched: Sequence[Path] = (),
        known_files: Fingerprint,
        ready: Callable[[], object] = lambda: None,
    ) -> None:
        self._relay = relay
        self._logs = logs
        self._flow_log = flow_log
        self._signals = signals
        self._notifier = notifier
        self._listeners = listeners
        self._version = version
        self._reread = reread
        self._drain = drain
        self._watched = watched
        self._known_files = known_files
        self._ready = ready
        self._counters = ProgramCounters(version)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._now = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._reload_waits = False

    async def run(self) -> int:
        servers = await self._open_servers()
        self._signals.deliver(
            {
                signal.SIGTERM: self._asked_to_stop,
                signal.SIGINT: self._asked_to_stop,
                signal.SIGHUP: lambda: self._spawn(self._reload_quietly("SIGHUP"), "reload"),
                signal.SIGUSR1: self._reopen_logs,
            }
        )
        self._spawn(self._tick(), "tick")
        if self._notifier.watchdog is not None:
            self._spawn(self._feed_watchdog(self._notifier.watchdog), "watchdog")
        if self._watched:
            watching = watch(self._watched, self._files_changed, known=self._known_files)
            self._spawn(watching, "watch")
        self._ready()
        self._notifier.ready(await asyncio.to_thread(self._status))
        try:
            await self._stop.wait()
            return await self._end()
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for server in servers:
                await server.close()
            self._signals.leave_loop()

    # What can be asked through the control socket

    def flows(self) -> list[dict[str, Any]]:
        # Not by dataclasses.asdict, which takes ten times as long for thousands of flows.
        return [{name: getattr(flow, name) for name in _FLOW} for flow in self._relay.flows()]

    def endpoints(self) -> list[dict[str, Any]]:
        stats = {entry["endpoint"]: entry for entry in self._relay.stats().to_dict()["endpoints"]}
        return [_shown(endpoint, stats.get(endpoint.id)) for endpoint in self._relay.endpoints]

    def stats(self) -> dict[str, Any]:
        return self._relay.stats().to_dict()

    def metrics(self) -> Response:
        self._counters.log_lines_lost = self._logs.lost
        text = render(self._relay.stats().to_dict(), self._counters)
        return Response(body=text, content_type=CONTENT_TYPE)

    def kill(self, flow: int) -> bool:
        return self._relay.kill(flow)

    def about(self) -> dict[str, Any]:
        return {
            "version": self._version,
            "pid": os.getpid(),
            "workers": self._relay.workers,
            "watching": [str(path) for path in self._watched],
        }

    async def reload(self) -> Reloaded:
        """Put the configuration as it is now in force; on QanatError nothing has changed."""
        async with self._reloading:
            if self._stop.is_set():
                raise QanatError("the relay is stopping", code="stopping")
            self._notifier.reloading()
            try:
                done = await asyncio.to_thread(self._reload)
            except QanatError as error:
                self._counters.reloads["failed"] += 1
                _log_problems(error)
                self._reopen_logs()
                raise
            finally:
                self._notifier.ready(await asyncio.to_thread(self._status))
            self._counters.reloads["done"] += 1
            _logger.info("reloaded: %s", done.report)
            return done

    def stop(self, *, now: bool) -> int:
        left = self._relay.open_flows()
        self._stop.set()
        if now:
            self._now.set()
        return left

    # Signals and tasks

    def _asked_to_stop(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
        elif not self._now.is_set():
            self._now.set()
        else:
            # Whatever keeps us from ending in order will not be waited for.
            os._exit(1)

    def _reopen_logs(self) -> None:
        try:
            self._logs.reopen()
        except OSError as error:
            _logger.error("the log could not be opened again: %s", error)

    def _files_changed(self) -> None:
        self._spawn(self._reload_quietly("a changed file"), "reload")

    async def _reload_quietly(self, why: str) -> None:
        """For those who get no answer: what went wrong is in the log."""
        if self._reload_waits:
            return
        # One that waits will read whatever is there when its turn comes: more need not wait.
        self._reload_waits = self._reloading.locked()
        _logger.info("reloading because of %s", why)
        try:
            await self.reload()
        except QanatError:
            return
        except Exception:
            _logger.exception("the reload failed in a way it should not; nothing may have changed")
        finally:
            self._reload_waits = False

    def _reload(self) -> Reloaded:
        reading = self._reread()
        _check_output(reading.logs)
        before = self._relay.config
        report = self._relay.apply_sync(reading.config)
        try:
            self._logs.apply(reading.logs)
        except OSError as error:
            _logger.error("the log could not be opened again: %s", error)
        self._flow_log.follow()
        self._relay.forget_names()
        self._drain = reading.drain
        warnings = [str(problem) for problem in reading.warnings]
        warnings += [
            f"{key} has changed; that takes effect at the next start"
            for key in _AT_START_ONLY
            if getattr(before, key) != getattr(reading.config, key)
        ]
        for warning in warnings:
            _logger.warning("%s", warning, extra={"kind": warning})
        return Reloaded(report, tuple(warnings))

    async def _tick(self) -> None:
        told, shown = time.monotonic(), ""
        while True:
            await asyncio.sleep(1.0)
            self._logs.tick()
            if self._notifier.wanted and time.monotonic() - told >= _STATUS_EVERY:
                told = time.monotonic()
                if (status := await asyncio.to_thread(self._status)) != shown:
                    self._notifier.status(status)
                    shown = status

    async def _feed_watchdog(self, interval: float) -> None:
        """Signs of life, given only while the engine's workers give theirs."""
        while True:
            try:
                await asyncio.to_thread(self._relay.stats)
            except QanatError:
                return
            self._notifier.alive()
            await asyncio.sleep(interval / 3)

    def _status(self) -> str:
        """Waits for the engine's workers: not for the loop, which must stay able to stop."""
        try:
            flows = self._relay.stats().open
        except QanatError:
            return "stopped"
        count = len(self._relay.endpoints)
        return f"{_counted(count, 'endpoint')}, {_counted(flows, 'flow')}"

    async def _open_servers(self) -> list[Server]:
        wanted: list[tuple[socket.socket | None, Handler, str]] = [
            (self._listeners.control, control_routes(self), "control"),
            (self._listeners.metrics, metrics_routes(self), "metrics"),
        ]
        if self._listeners.status_page is not None:
            page = status_page(
                self._flow_from,
                version=self._version,
                listen=self._relay.endpoints[0].address,
            )
            wanted.append((self._listeners.status_page, page, "status page"))
        servers = []
        for listener, handler, name in wanted:
            if listener is not None:
                server = Server(handler, name=name)
                await server.serve(listener)
                servers.append(server)
        return servers

    def _flow_from(self, address: str) -> Mapping[str, Any] | None:
        for flow in self._relay.flows():
            if flow.source == address:
                return flow.to_dict()
        return None

    async def _end(self) -> int:
        drain = 0.0 if self._now.is_set() else self._drain
        left = self._relay.open_flows()
        self._notifier.stopping(f"waiting for {_counted(left, 'flow')}" if left else "")
        if left and drain:
            self._notifier.extend(drain + 5.0)
            _logger.info("stopping: %s may go on for %g s", _counted(left, "flow"), drain)
        stopping = asyncio.create_task(asyncio.to_thread(self._relay.stop, drain))
        hurry = asyncio.create_task(self._now.wait())
        try:
            await asyncio.wait({stopping, hurry}, return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                await asyncio.to_thread(self._relay.stop, 0.0)
            return await stopping
        finally:
            hurry.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _log_problems(error: QanatError) -> None:
    mistakes = error.problems if isinstance(error, ConfigError) else (error,)
    for text in map(str, mistakes):
        _logger.error("reload refused, nothing has changed: %s", text, extra={"kind": text})


def _check_output(settings: LogSettings) -> None:
    """Before anything is touched: can the log be written where it shall go?"""
    if settings.output in ("stdout", "stderr"):
        return
    try:
        os.close(os.open(settings.output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640))
    except OSError as error:
        problem = Problem(error.strerror or str(error), key="log.output", value=settings.output)
        raise ConfigError([problem]) from error


def _shown(endpoint: RunningEndpoint, stats: Mapping[str, Any] | None) -> dict[str, Any]:
    plan = endpoint.plan
    tcp, udp = (stats or {}).get("tcp") or {}, (stats or {}).get("udp") or {}

    def both(name: str) -> int:
        return int(tcp.get(name, 0)) + int(udp.get(name, 0))

    return {
        "endpoint": endpoint.id,
        "listen": plan.listen,
        "tcp_address": endpoint.tcp_address,
        "udp_address": endpoint.udp_address,
        "remotes": [f"{_host(remote.host)}:{remote.port}" for remote in plan.remotes],
        "open": both("open"),
        "total": both("total"),
        "bytes_up": both("bytes_up"),
        "bytes_down": both("bytes_down"),
        "refused": sum(tcp.get("refused", {}).values()),
        "dropped": sum(udp.get("dropped", {}).values()),
        "tcp": tcp or None,
        "udp": udp or None,
        "health": list((stats or {}).get("remotes") or ()),
    }


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
