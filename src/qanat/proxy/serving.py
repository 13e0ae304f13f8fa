"""A running proxy: its listeners, its reload, its end, and answers to whoever asks.

One event loop decides; the engine moves what has been decided. What a reload replaces (users,
rules, limits) is looked up by each new connection; those that are made keep what they were told.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from qanat.config.proxy import FORMS, ProxyConfig
from qanat.config.proxy_file import LoadedProxy
from qanat.errors import ConfigError, Problem, QanatError
from qanat.observe.access import is_written, write_access
from qanat.observe.flow import Flow
from qanat.observe.http import Handler, Response
from qanat.observe.http import Server as PageServer
from qanat.observe.logs import Logs, LogSettings
from qanat.observe.metrics import CONTENT_TYPE, ProgramCounters, render
from qanat.observe.notify import Notifier
from qanat.observe.stats import Stats
from qanat.process.control import Reloaded, control_routes, metrics_routes
from qanat.process.signals import Signals
from qanat.proxy.accounts import Accounts, Allowance
from qanat.proxy.auth import HashedUsers
from qanat.proxy.http import Forwarded
from qanat.proxy.rules import RuleSet, RulesInForce, compile_rules
from qanat.proxy.stacks import Policy, Stacks
from qanat.proxy.users import UserEntry, read_users
from qanat.stack.bridge import Bridge
from qanat.stack.courier import Courier, courier
from qanat.stack.errors import LocalProtocolError
from qanat.stack.extensions import Extensions
from qanat.stack.facts import Client, Listener, Peer, Target, User
from qanat.stack.listening import Listening
from qanat.stack.relaying import RelayReport
from qanat.stack.server import Server, open_server
from qanat.stack.service import Service
from qanat.stack.tls import TlsServerConfig

__all__ = ["Bound", "Prepared", "Serving", "prepare"]

_logger = logging.getLogger("qanat.proxy")

_FLOW: Final = tuple(entry.name for entry in fields(Flow))
_AT_START_ONLY: Final = (*FORMS, "metrics", "control")
"""Keys that a reload can't carry out."""
_OF_STACKS: Final = (
    "tls",
    "guest",
    "private",
    "via",
    "udp",
    "connect_timeout",
    "handshake_timeout",
    "idle_timeout",
)
"""Keys whose changes are for new connections."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration with everything that it names read and understood."""

    loaded: LoadedProxy
    rules: RuleSet
    users: dict[str, UserEntry] | None

    @property
    def config(self) -> ProxyConfig:
        return self.loaded.config

    def warnings(self) -> list[Problem]:
        """What is no mistake, and most likely not meant."""
        found = []
        for number, rule in enumerate(self.rules.rules):
            unknown = [name for name in rule.rule.users if name not in (self.users or {})]
            if unknown and not self.config.guest:
                why = "without auth, nobody has a name" if self.users is None else "no such user"
                names = ", ".join(unknown)
                problem = self.loaded.problem(
                    ("rules",), f"rule {number + 1} names {names}: {why}", severity="warning"
                )
                found.append(problem)
        return found

    def allowance(self, name: str) -> Allowance:
        """What a user may have: by the file of users, else as everybody."""
        limits = self.config.limits
        entry = (self.users or {}).get(name)
        return Allowance(
            (entry.connections if entry else 0) or limits.max_connections_per_user,
            (entry.up if entry else 0) or limits.rate_up,
            (entry.down if entry else 0) or limits.rate_down,
        )


def prepare(loaded: LoadedProxy) -> Prepared:
    """:raises ConfigError: a file that it names can't be used."""
    config = loaded.config
    folder = None if loaded.file is None else loaded.file.parent
    rules = compile_rules(config.rules, folder)
    users = None
    if config.auth is not None:
        path = Path(config.auth)
        users = read_users(path if folder is None else folder / path)
        if not users and not config.guest:
            raise ConfigError(
                [
                    loaded.problem(
                        ("auth",),
                        "there is no user in this file",
                        value=config.auth,
                        hint=f"qanat proxy passwd {config.auth} NAME",
                    )
                ]
            )
    if config.tls:
        try:
            TlsServerConfig.from_files(*config.tls).context()
        except LocalProtocolError as error:
            raise ConfigError([loaded.problem(("tls",), str(error))]) from None
    return Prepared(loaded, rules, users)


@dataclass(frozen=True, slots=True)
class Bound:
    """A socket that listens already, and what is served on it."""

    form: str
    name: str
    socket: socket.socket


@dataclass(frozen=True, slots=True)
class _Report:
    """What a reload has changed."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    rebound: tuple[str, ...] = ()
    untouched: tuple[str, ...] = ()


class Serving:
    """From listening to the end: :meth:`run` gives the number of connections that were cut."""

    def __init__(
        self,
        prepared: Prepared,
        bound: Sequence[Bound],
        *,
        app: Service[Any, object] | None,
        logs: Logs,
        signals: Signals,
        notifier: Notifier,
        pages: Sequence[tuple[socket.socket, str]],
        version: str,
        reread: Callable[[], tuple[Prepared, LogSettings]],
        ready: Callable[[Sequence[Listening]], object],
    ) -> None:
        self._prepared = prepared
        self._bound = bound
        self._app = app
        self._logs = logs
        self._signals = signals
        self._notifier = notifier
        self._pages = pages
        self._version = version
        self._reread = reread
        self._ready = ready
        self._rules = RulesInForce(prepared.rules)
        self._auth = None if prepared.users is None else HashedUsers(_hashes(prepared))
        self._accounts = Accounts(prepared.allowance)
        self._counters = ProgramCounters(version)
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: Server
        self._carrier: Courier
        self._numbers = 0

    async def run(self) -> int:
        config = self._prepared.config
        self._carrier = await courier()
        limits = config.limits
        pages: list[PageServer] = []
        async with open_server(
            drain=config.drain,
            max_conns=limits.max_connections or None,
            max_conns_per_client=limits.max_connections_per_client or None,
        ) as self._server:
            for one, service in zip(self._bound, self._services(), strict=True):
                self._server.tcp(one.socket, service, name=one.name)
            for sock, kind in self._pages:
                handler: Handler = (
                    control_routes(self) if kind == "control" else metrics_routes(self)
                )
                page = PageServer(handler, name=kind)
                await page.serve(sock)
                pages.append(page)
            self._signals.deliver(
                {
                    signal.SIGTERM: self._asked_to_stop,
                    signal.SIGINT: self._asked_to_stop,
                    signal.SIGHUP: lambda: self._spawn(self._reload_quietly()),
                    signal.SIGUSR1: self._reopen_logs,
                }
            )
            self._spawn(self._tick())
            self._ready(self._server.listeners)
            self._notifier.ready(self._status())
            try:
                report = await self._server.run(signals=False)
            finally:
                self._notifier.stopping()
                for task in list(self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                for page in pages:
                    await page.close()
                self._signals.leave_loop()
            return report.cut

    def _services(self) -> list[Service[Any, object]]:
        """What is served on each address, by the configuration as it is now."""
        policy = Policy(
            self._rules,
            self._accounts,
            self._auth,
            self._own,
            self._ended,
            self._forwarded,
        )
        stacks = Stacks(self._prepared.config, policy, self._carrier)
        return [
            self._app
            if one.form == "app" and self._app is not None
            else stacks.of(one.form, one.name)
            for one in self._bound
        ]

    # What can be asked through the control socket

    def flows(self) -> list[dict[str, Any]]:
        flows = [Flow.from_record(record) for record in self._carrier.group.flows()]
        return [{name: getattr(flow, name) for name in _FLOW} for flow in flows]

    def endpoints(self) -> list[dict[str, Any]]:
        stats = {entry["endpoint"]: entry for entry in self._counted()["endpoints"]}
        return [_shown(listener, stats.get(listener.name)) for listener in self._server.listeners]

    def stats(self) -> dict[str, Any]:
        told = self._counted()
        told["users"] = list(self._users())
        told["clients"] = [
            {
                "endpoint": listener.name,
                "open": listener.open,
                "accepted": listener.accepted,
                "refused": listener.refused + listener.denied,
            }
            for listener in self._server.listeners
        ]
        return told

    def _counted(self) -> dict[str, Any]:
        """By the engine."""
        return Stats.from_record(self._carrier.group.stats()).to_dict()

    def _users(self) -> Iterator[dict[str, Any]]:
        if not self._accounts.by_user:
            # Nobody is counted, so there is nothing to look for among the flows.
            return
        moving = self._moving()
        for name, account in list(self._accounts.by_user.items()):
            up, down = account.tell(*moving.get(name, (0, 0)))
            yield {
                "user": name,
                "open": account.open,
                "total": account.total,
                "refused": account.refused,
                "bytes_up": up,
                "bytes_down": down,
            }

    def _moving(self) -> dict[str, tuple[int, int]]:
        """Bytes of each user's flows that are alive: they are in no account yet."""
        found: dict[str, tuple[int, int]] = {}
        for record in self._carrier.group.flows():
            flow = Flow.from_record(record)
            if flow.user is not None:
                up, down = found.get(flow.user, (0, 0))
                found[flow.user] = (up + flow.bytes_up, down + flow.bytes_down)
        return found

    def metrics(self) -> Response:
        self._counters.log_lines_lost = self._logs.lost
        return Response(body=render(self.stats(), self._counters), content_type=CONTENT_TYPE)

    def kill(self, flow: int) -> bool:
        return self._carrier.group.kill(flow)

    def about(self) -> dict[str, Any]:
        return {
            "version": self._version,
            "pid": os.getpid(),
            "workers": self._carrier.group.workers,
            "watching": [],
        }

    async def reload(self) -> Reloaded:
        """Users, rules, limits and the log as they are now; on QanatError nothing has changed."""
        async with self._reloading:
            self._notifier.reloading()
            try:
                prepared, logs = await asyncio.to_thread(self._reread)
                done = await self._put_in_force(prepared, logs)
            except QanatError as error:
                self._counters.reloads["failed"] += 1
                problems = error.problems if isinstance(error, ConfigError) else (error,)
                for problem in problems:
                    _logger.error("reload refused, nothing has changed: %s", problem)
                raise
            finally:
                self._notifier.ready(self._status())
            self._counters.reloads["done"] += 1
            _logger.info("reloaded: %s", ", ".join(done.report.changed) or "nothing has changed")  # type: ignore[attr-defined]
            return done

    async def _put_in_force(self, prepared: Prepared, logs: LogSettings) -> Reloaded:
        before, self._prepared = self._prepared, prepared
        for problem in prepared.warnings():
            _logger.warning("%s", problem)
        changed = []
        if prepared.users != before.users:
            changed.append("users")
        if prepared.config.rules != before.config.rules or prepared.rules != before.rules:
            changed.append("rules")
        if prepared.config.limits != before.config.limits:
            changed.append("limits")
        self._rules.now = prepared.rules
        if self._auth is not None and prepared.users is not None:
            self._auth.replace(_hashes(prepared))
        elif (prepared.users is None) != (before.users is None):
            self._auth = None if prepared.users is None else HashedUsers(_hashes(prepared))
        changed += [
            key
            for key in _OF_STACKS
            if getattr(before.config, key) != getattr(prepared.config, key)
        ]
        for listener, service in zip(self._server.listeners, self._services(), strict=True):
            # Who is connected stays with what was there before.
            listener.service = service
        await self._accounts.replace(prepared.allowance)
        limits = prepared.config.limits
        self._server.max_conns = limits.max_connections or None
        if (limits.max_connections_per_client == 0) == (
            before.config.limits.max_connections_per_client == 0
        ):
            self._server.max_conns_per_client = limits.max_connections_per_client or None
        self._server.drain = prepared.config.drain
        try:
            self._logs.apply(logs)
        except OSError as error:
            _logger.error("the log could not be opened again: %s", error)
        warnings = [
            f"{key} has changed; that takes effect at the next start"
            for key in _AT_START_ONLY
            if getattr(before.config, key) != getattr(prepared.config, key)
        ]
        for warning in warnings:
            _logger.warning("%s", warning)
        names = tuple(listener.name for listener in self._server.listeners)
        return Reloaded(_Report(changed=tuple(changed), untouched=names), tuple(warnings))

    def stop(self, *, now: bool) -> int:
        left = len(self._server.connections)
        self._server.shutdown(now=now)
        return left

    # Signals and tasks

    def _asked_to_stop(self) -> None:
        server = self._server
        if not server.stopping:
            server.shutdown()
        elif not server.forced:
            server.forced = True
            server.shutdown(now=True)
        else:
            # Whatever keeps us from ending in order will not be waited for.
            os._exit(1)

    def _reopen_logs(self) -> None:
        try:
            self._logs.reopen()
        except OSError as error:
            _logger.error("the log could not be opened again: %s", error)

    async def _reload_quietly(self) -> None:
        """For those who get no answer: what went wrong is in the log."""
        try:
            await self.reload()
        except QanatError:
            return
        except Exception:
            _logger.exception("the reload failed in a way it should not")

    async def _tick(self) -> None:
        watchdog, fed = self._notifier.watchdog, 0.0
        while True:
            await asyncio.sleep(1.0)
            self._logs.tick()
            if watchdog is not None and time.monotonic() - fed >= watchdog / 3:
                fed = time.monotonic()
                self._notifier.alive()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _status(self) -> str:
        count = len(self._server.connections)
        return f"{count} connection{'' if count == 1 else 's'}"

    # What the stacks ask and tell

    def _own(self) -> list[Any]:
        return [listener.address for listener in self._server.listeners if listener.address]

    def _forwarded(self, request: Forwarded) -> None:
        user = request.ext.get(User)
        if user is not None and not request.live:
            account = self._accounts.of(user.name)
            account.total += request.requests
            account.bytes_up += request.bytes_up
            account.bytes_down += request.bytes_down
        if not request.method:
            # Several together: nobody reads of each.
            return
        self._write(
            request.ext,
            None,
            RelayReport(
                "target_closed",
                f"{request.method} {request.status}",
                request.bytes_up,
                request.bytes_down,
                request.seconds,
                lowered=False,
            ),
        )

    def _ended(self, bridge: Bridge, report: RelayReport) -> None:
        self._write(bridge.ext, bridge.upstream.ext.get(Peer), report)

    def _write(self, ext: Extensions, peer: Peer | None, report: RelayReport) -> None:
        if not is_written():
            return
        source, target = ext.get(Client) or ext.get(Peer), ext.get(Target)
        listener, user = ext.get(Listener), ext.get(User)
        self._numbers += 1
        write_access(
            Flow.from_record(
                {
                    "id": self._numbers,
                    "endpoint": "" if listener is None else listener.name,
                    "client": "" if source is None else str(source.address),
                    "target": "" if target is None else str(target.address),
                    "peer": None if peer is None else str(peer.address),
                    "user": None if user is None else user.name,
                    "bytes_up": report.bytes_up,
                    "bytes_down": report.bytes_down,
                    "duration": report.seconds,
                    "reason": report.reason,
                    "detail": report.detail,
                }
            )
        )


def _hashes(prepared: Prepared) -> dict[str, str]:
    return {name: entry.hashed for name, entry in (prepared.users or {}).items()}


def _shown(listener: Listening, stats: dict[str, Any] | None) -> dict[str, Any]:
    tcp, udp = (stats or {}).get("tcp") or {}, (stats or {}).get("udp") or {}
    return {
        "endpoint": listener.name,
        "listen": str(listener.address),
        "tcp_address": str(listener.address),
        "udp_address": None,
        "remotes": ["what clients ask for"],
        "open": listener.open,
        "total": listener.accepted,
        "bytes_up": int(tcp.get("bytes_up", 0)) + int(udp.get("bytes_up", 0)),
        "bytes_down": int(tcp.get("bytes_down", 0)) + int(udp.get("bytes_down", 0)),
        "refused": listener.refused + listener.denied,
        "dropped": sum(udp.get("dropped", {}).values()),
        "tcp": tcp or None,
        "udp": udp or None,
        "health": [],
    }
