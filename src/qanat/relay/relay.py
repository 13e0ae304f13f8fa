"""A relay: the endpoints of one configuration, served by the engine.

Knows the configuration's models, plans, and the engine through ``qanat.engine``. Every method
may be called from any thread; those that are coroutines do the same work without blocking the event
loop that they are called in.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

from qanat.config.models import Config, Endpoint
from qanat.engine import Bound, Deciding, Group, Sink, open_group
from qanat.errors import EngineClosed, QanatError, RelayStateError
from qanat.observe.flow import Flow
from qanat.observe.stats import Stats
from qanat.plan import EndpointPlan
from qanat.relay.callbacks import Callbacks
from qanat.relay.difference import Difference, Report, difference
from qanat.relay.ended import EndedFlows
from qanat.relay.hooks import NO_HOOKS, load_hooks
from qanat.relay.inherited import Inherited
from qanat.relay.notice import Notice
from qanat.relay.planning import overall_limits, plans

__all__ = ["Relay", "RunningEndpoint"]

_Result = TypeVar("_Result")

_PAGE = 4096
_POLL_SECONDS = 0.02
_GRACE_SECONDS = 0.1
_CUT_SECONDS = 2.0
"""How long the engine may take to end flows that were cut; it takes milliseconds."""

_logger = logging.getLogger("qanat.relay")


@dataclass(frozen=True, slots=True)
class RunningEndpoint:
    """One endpoint that is being served."""

    id: str
    plan: EndpointPlan
    tcp_address: str | None
    """``ip:port`` with the port that the kernel chose in place of 0; None without TCP."""
    udp_address: str | None
    handle: int = field(repr=False)

    @property
    def address(self) -> str:
        """The TCP address, or the UDP address if there is no TCP."""
        return self.tcp_address or self.udp_address or self.plan.listen


class Relay:
    """Carries the flows of its endpoints from ``start`` to ``stop``.

    Give ``endpoints`` or a whole ``config``, or both if the config has no endpoints of its own.
    ``workers`` (threads, 0: one per core) wins over the one in ``config``. All relays of a process
    share one engine: the first relay's wish counts, others are warned.

    Use it as an asynchronous context manager, or call ``start`` and ``stop``. Whoever starts a
    relay stops it: one that is dropped while it runs is closed with a ResourceWarning. What still
    runs when the interpreter exits is cut. In the child of a fork the relay is unusable
    (EngineClosed); a new one can be started there.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint] = (),
        *,
        config: Config | None = None,
        workers: int | None = None,
    ) -> None:
        config = Config() if config is None else config
        if endpoints != ():
            if config.endpoints:
                raise TypeError("endpoints were given twice: as such, and in config")
            config = _with(config, endpoints)
        self._config = config
        self._workers = config.workers if workers is None else workers
        self._group: Group | None = None
        self._running: dict[str, RunningEndpoint] = {}
        self._hooks = NO_HOOKS
        self._draining = False
        self._stop_by = math.inf
        # Held by whoever starts, stops or changes the endpoints.
        self._changing = threading.Lock()
        self._unclosed: weakref.finalize[[Group, str], Relay] | None = None
        self._ended = Callbacks[Flow]()
        self._notices = Callbacks[Notice]()
        self._iterators: weakref.WeakSet[EndedFlows] = weakref.WeakSet()
        self._watching = False
        # Held to change or read who wants to know of ended flows.
        self._audience = threading.Lock()

    def __repr__(self) -> str:
        state = "draining" if self._draining else "running" if self.running else "not running"
        addresses = [endpoint.address for endpoint in self._running.values()]
        shown = ", ".join(addresses[:3]) + (", ..." if len(addresses) > 3 else "")
        return f"<Relay {state}{': ' if shown else ''}{shown}>"

    # Beginning and end

    def start(self, *, inherited: Mapping[str, int] | None = None) -> None:
        """Bind every endpoint, then serve them all.

        ``inherited`` are listening sockets to use in place of new ones: descriptors by endpoint id
        or listening address, with ``tcp://`` or ``udp://`` before it if need be. Those that an
        endpoint uses belong to the relay from then on; a warning is logged for others.

        Raises ConfigError, or BindError for the first endpoint that can't listen; then nothing is
        left behind. Raises RelayStateError if the relay runs already. A relay that was stopped can
        be started again.
        """
        with self._changing:
            if self.running:
                raise RelayStateError("the relay is running already")
            sockets = Inherited(inherited or {})
            wanted = plans(self._config)
            hooks = load_hooks(wanted, self._hooks)
            group = open_group(
                overall_limits(self._config),
                _weakly(self),
                workers=self._workers,
                pipe_size=(self._config.pipe_page or 0) * _PAGE,
            )
            try:
                group.set_hooks(hooks.by_call, _deciding)
                running = {}
                for plan in wanted:
                    tcp_fd, udp_fd = sockets.take(plan)
                    bound = group.bind(plan, tcp_fd=tcp_fd, udp_fd=udp_fd)
                    running[plan.id] = _endpoint(plan, bound)
                with self._audience:
                    self._group = group
                    self._watch_if_wanted()
                group.start([endpoint.handle for endpoint in running.values()])
            except BaseException:
                self._group, self._watching = None, False
                group.leave()
                raise
            if sockets.left:
                _logger.warning("inherited sockets that no endpoint uses: %s", sockets.left)
            self._running = running
            self._hooks = hooks
            self._draining = False
            self._unclosed = weakref.finalize(self, _dropped, group, repr(self))
            # At exit it would come before exit handlers of the program, which may still stop us.
            self._unclosed.atexit = False

    def stop(self, drain: float = 0.0) -> int:
        """Stop accepting, let flows go on for up to ``drain`` seconds, and cut the others.

        UDP associations have no end of their own to wait for: they are cut when the last TCP flow
        has ended. Returns how many flows were cut. All records of ended flows have been handed out
        when it returns. Does nothing if the relay does not run. A second call while one is draining
        shortens it to its own ``drain``, so that ``stop()`` ends things now.
        """
        if not self.running:
            return 0
        self._stop_by = min(self._stop_by, time.monotonic() + max(drain, 0.0))
        with self._changing:
            group, self._unclosed, unclosed = self._group, None, self._unclosed
            try:
                return self._end(group) if group is not None else 0
            finally:
                if unclosed is not None:
                    unclosed.detach()
                self._stop_by = math.inf

    async def astart(self, *, inherited: Mapping[str, int] | None = None) -> None:
        """``start`` without blocking the event loop. When cancelled, the relay does not run."""

        def start() -> None:
            self.start(inherited=inherited)

        await _on_thread(start, undo=self.stop)

    async def aclose(self, drain: float = 0.0) -> int:
        """``stop`` without blocking the event loop. When cancelled, what drains is cut first."""

        def stop() -> int:
            return self.stop(drain)

        return await _on_thread(stop, cancel=self._stop_now)

    async def __aenter__(self) -> Self:
        await self.astart()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stops the relay and cuts its flows; ``drain`` first, if they shall end in peace."""
        await self.aclose()

    def drain(self, limit: float | None = None) -> None:
        """Stop accepting. Flows go on until they end, or for ``limit`` seconds.

        The relay still has to be stopped. Raises RelayStateError if it does not run.
        """
        with self._changing:
            self._stop_accepting(self._serving(), math.inf if limit is None else limit)

    def wait_drained(self, timeout: float | None = None) -> bool:
        """Wait until no TCP flow is open; False if some still are after ``timeout`` seconds."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while (group := self._group) is not None and group.usable and group.open_flows():
            pause = min(_POLL_SECONDS, deadline - time.monotonic())
            if pause <= 0:
                return False
            time.sleep(pause)
        return True

    @property
    def running(self) -> bool:
        """Between ``start`` and ``stop``, also while it drains."""
        group = self._group
        return group is not None and group.usable

    # Change

    async def apply(
        self, endpoints: Sequence[Endpoint] | Config, *, drain: float | None = None
    ) -> Report:
        """Serve other endpoints: the difference is carried out, and nothing else is touched.

        Endpoints that stay the same keep their sockets and flows. For one that changes, new flows
        go by what is new at once, and flows that are open live on as they are, or for ``drain``
        seconds; likewise those of an endpoint that is removed. A ``Config`` brings its other
        settings with it, except those of the engine (``workers``, ``pipe_page``), which it has from
        its start to its end.

        Everything is validated and bound before anything that runs is touched. Raises ConfigError
        or BindError; then the relay goes on as before. Raises RelayStateError if it does not run.
        When cancelled, the change is carried out or refused as a whole before this returns.
        """

        def apply() -> Report:
            return self.apply_sync(endpoints, drain=drain)

        return await _on_thread(apply)

    def apply_sync(
        self, endpoints: Sequence[Endpoint] | Config, *, drain: float | None = None
    ) -> Report:
        """``apply`` for callers without an event loop."""
        with self._changing:
            group = self._serving()
            config = endpoints if isinstance(endpoints, Config) else _with(self._config, endpoints)
            wanted = plans(config)
            hooks = load_hooks(wanted, self._hooks)
            change = difference([entry.plan for entry in self._running.values()], wanted)
            group.set_hooks(hooks.beside(self._hooks).by_call, _deciding)
            try:
                running = self._carry_out(group, change, config, -1.0 if drain is None else drain)
            except BaseException:
                with suppress(QanatError):
                    group.set_hooks(self._hooks.by_call, _deciding)
                raise
            self._running = {plan.id: running[plan.id] for plan in wanted}
            self._hooks = hooks
            self._config = config
        return change.report()

    # Looking

    @property
    def config(self) -> Config:
        """What is in force, or will be at the next start."""
        return self._config

    @property
    def endpoints(self) -> list[RunningEndpoint]:
        """In the order of the configuration, one for each port; empty if the relay does not run."""
        return list(self._running.values())

    @property
    def workers(self) -> int:
        """Threads of the engine. Raises RelayStateError if the relay does not run."""
        return self._live().workers

    def flows(self) -> list[Flow]:
        """The flows that are open now. Raises RelayStateError if the relay does not run."""
        return [Flow.from_record(record) for record in self._live().flows()]

    def open_flows(self) -> int:
        """How many TCP flows are open. Cheap. Raises RelayStateError if the relay does not run."""
        return self._live().open_flows()

    def stats(self) -> Stats:
        """Counters and gauges of now. Raises RelayStateError if the relay does not run."""
        return Stats.from_record(self._live().stats())

    def kill(self, flow: int) -> bool:
        """End one flow now, by its id; False if there is none. Both sides see a reset."""
        return self._live().kill(flow)

    def forget_names(self) -> None:
        """Have the engine look up every name anew, for all relays of this process."""
        self._live().forget_names()

    # Being told

    def ended(self, limit: int = 10_000) -> EndedFlows:
        """Flows from now on, as they end, until the relay stops: ``async for flow in ...``.

        It may be called before ``start``, so that nothing is missed. Each call gives an iterator of
        its own, holding up to ``limit`` records; ``lost`` counts what a slow consumer missed.
        """
        iterator = EndedFlows(limit)
        with self._audience:
            self._iterators.add(iterator)
            self._watch_if_wanted()
        return iterator

    def on_ended(self, callback: Callable[[Flow], object]) -> Callable[[], None]:
        """Call ``callback`` with each flow that ends; the result takes it out again.

        It is called on a thread of its own for all relays, one flow after the other: it should be
        quick. Exceptions in it are logged. Records that come while the engine's queue is full are
        dropped and counted in ``stats().events.lost``.
        """
        remove = self._ended.add(callback)
        with self._audience:
            self._watch_if_wanted()
        return remove

    def on_notice(self, callback: Callable[[Notice], object]) -> Callable[[], None]:
        """Call ``callback`` with each notice, as ``on_ended``; without one, they are logged."""
        return self._notices.add(callback)

    # Within

    def _live(self) -> Group:
        group = self._group
        if group is None:
            raise RelayStateError("the relay is not running")
        return group

    def _serving(self) -> Group:
        group = self._live()
        if self._draining:
            raise RelayStateError("the relay is draining: it takes no change but its end")
        return group

    def _carry_out(
        self, group: Group, change: Difference, config: Config, drain: float
    ) -> dict[str, RunningEndpoint]:
        """The endpoints that run afterwards, by the ids of their new plans."""
        before = self._running
        leaving = [*change.removed, *(old for old, _ in change.rebound)]
        # The addresses that they have, which is more than their plans say where that is port 0.
        leaving_ports = {_port(before[plan.id].address) for plan in leaving}
        running = {plan.id: before[plan.id] for plan in change.untouched}
        fresh: list[RunningEndpoint] = []
        updated: list[EndpointPlan] = []
        try:
            for plan in (*change.added, *(new for _, new in change.rebound)):
                takeover = _port(plan.listen) in leaving_ports
                fresh.append(_endpoint(plan, group.bind(plan, takeover=takeover)))
            for old, new in change.changed:
                group.update(before[old.id].handle, new, drain)
                updated.append(old)
            group.set_limits(overall_limits(config))
            group.start([endpoint.handle for endpoint in fresh])
        except BaseException:
            with suppress(QanatError):
                for endpoint in fresh:
                    group.close(endpoint.handle, 0.0)
                for old in updated:
                    group.update(before[old.id].handle, old)
                group.set_limits(overall_limits(self._config))
            raise
        for old, new in change.changed:
            kept = before[old.id]
            running[new.id] = RunningEndpoint(
                new.id, new, kept.tcp_address, kept.udp_address, kept.handle
            )
        running |= {endpoint.id: endpoint for endpoint in fresh}
        for plan in leaving:
            group.close(before[plan.id].handle, drain)
        return running

    def _stop_accepting(self, group: Group, drain: float) -> None:
        self._draining = True
        for endpoint in self._running.values():
            group.close(endpoint.handle, -1.0 if drain == math.inf else drain)

    def _end(self, group: Group) -> int:
        drain = self._stop_by - time.monotonic()
        try:
            if not self._draining:
                # The engine cuts what outlives its time, a little later than we look how many
                # those are. Cutting at once is for kill_all, which gives the reason "shutdown".
                self._stop_accepting(group, drain + _GRACE_SECONDS if drain > 0 else math.inf)
            cut = self._await_end(group, engine_cuts=drain > 0)
            if self._watching:
                group.flush_events(timeout=_CUT_SECONDS)
            return cut
        except EngineClosed:
            return 0
        finally:
            with self._audience:
                self._group, self._watching = None, False
                iterators = list(self._iterators)
            self._running = {}
            self._draining = False
            group.leave()
            for iterator in iterators:
                iterator.close()

    def _await_end(self, group: Group, *, engine_cuts: bool) -> int:
        stop_by = self._stop_by
        left = group.open_flows()
        while left and time.monotonic() < self._stop_by:
            time.sleep(min(_POLL_SECONDS, max(self._stop_by - time.monotonic(), 0.0)))
            left = group.open_flows()
        if left and engine_cuts and stop_by == self._stop_by:
            self._await_none(group, 2 * _GRACE_SECONDS)
        cut = max(left, group.kill_all())
        self._await_none(group, _CUT_SECONDS)
        return cut

    def _await_none(self, group: Group, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while group.open_flows() and time.monotonic() < deadline:
            time.sleep(0.001)

    def _stop_now(self) -> None:
        self._stop_by = min(self._stop_by, time.monotonic())

    def _watch_if_wanted(self) -> None:
        """Under ``_audience``: records of ended flows cost something and are made on demand."""
        wanted = bool(self._ended) or len(self._iterators) > 0
        if self._group is not None and self._group.usable and wanted != self._watching:
            self._group.watch(wanted)
            self._watching = wanted

    def _on_events(self, events: list[dict[str, Any]]) -> None:
        """On the events thread, with what concerns this relay."""
        ended = [Flow.from_record(event) for event in events if event.get("kind") == "ended"]
        notices = [Notice.from_record(event) for event in events if event.get("kind") == "notice"]
        lost = sum(event.get("count", 1) for event in events if event.get("kind") == "lost")
        with self._audience:
            iterators = list(self._iterators)
            with suppress(QanatError):
                self._watch_if_wanted()
        for iterator in iterators:
            if lost:
                iterator.miss(lost)
            iterator.add(ended)
        self._ended.call(ended)
        if lost:
            text = f"{lost} records of ended flows were lost, as they came faster than they went"
            notices.append(Notice(None, "events_lost", text, lost))
        if self._notices:
            self._notices.call(notices)
        else:
            for notice in notices:
                _logger.warning("%s: %s (%d x)", notice.endpoint, notice.text, notice.count)


def _with(config: Config, endpoints: Sequence[Endpoint]) -> Config:
    # A model is a sequence of its fields to Python: one endpoint alone would go far before failing.
    if isinstance(endpoints, Endpoint) or not all(isinstance(one, Endpoint) for one in endpoints):
        raise TypeError("endpoints must be a list of Endpoint")
    return config.model_copy(update={"endpoints": list(endpoints)})


def _endpoint(plan: EndpointPlan, bound: Bound) -> RunningEndpoint:
    return RunningEndpoint(plan.id, plan, bound.tcp_address, bound.udp_address, bound.handle)


def _port(address: str) -> str:
    return address.rpartition(":")[2]


def _deciding(fd: int, take: Callable[[], list[str]], give: Callable[[str], None]) -> Deciding:
    from qanat.relay.deciding import Deciding  # a relay without hooks does without

    return Deciding(fd, take, give)


def _weakly(relay: Relay) -> Sink:
    """The engine's thread must not keep alive a relay that everybody else has dropped."""
    method = weakref.WeakMethod(relay._on_events)

    def sink(events: list[dict[str, Any]]) -> None:
        alive = method()
        if alive is not None:
            alive(events)

    return sink


def _dropped(group: Group, description: str) -> None:
    if group.abandon():
        warnings.warn(f"{description} was not stopped", ResourceWarning, stacklevel=2)


async def _on_thread(
    work: Callable[[], _Result],
    *,
    cancel: Callable[[], None] | None = None,
    undo: Callable[[], object] | None = None,
) -> _Result:
    """Run ``work`` to its end, whatever becomes of the waiting task.

    When the task is cancelled, ``cancel`` asks the work to be quick, and ``undo`` runs after it.
    """
    loop = asyncio.get_running_loop()
    running = loop.run_in_executor(None, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if cancel is not None:
            cancel()
        await _settled(running)
        if undo is not None and running.exception() is None:
            await _settled(loop.run_in_executor(None, undo))
        raise


async def _settled(running: asyncio.Future[Any]) -> None:
    """Wait for ``running`` through further cancellations; its error is its own affair."""
    while not running.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([running])
    running.exception()
