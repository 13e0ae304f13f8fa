"""The one engine of this process, shared by all its relays and servers.

It starts with the first group and ends with the last; a thread fetches its events and hands them to
the groups. This module alone imports the native engine: it knows plans and errors, converts both at
this border, and answers for what processes do to threads: interpreter exit and fork.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from qanat.errors import BindError, ConfigError, EngineClosed, Problem, QanatError
from qanat.plan import EndpointPlan, LimitsPlan, to_json

if TYPE_CHECKING:
    from qanat._engine import Desk, Engine

__all__ = ["Bound", "Deciding", "Group", "Sink", "open_group"]


class Deciding(Protocol):
    """Who answers the engine's questions about flows, for all groups of a process."""

    def set(self, group: int, hooks: Mapping[str, Any]) -> None: ...

    def forget(self, group: int) -> None: ...

    def close(self) -> None: ...


MakeDeciding = Callable[[int, Callable[[], list[str]], Callable[[str], None]], Deciding]
"""From a descriptor that is readable while questions wait, and how to take and to answer them."""

Sink = Callable[[list[dict[str, Any]]], None]
"""Takes the events of one group, on the events thread. Must not raise and should be quick."""

_FETCH_SECONDS = 5.0
"""How long the events thread waits at a time; it is woken by events and by the engine's end, so
this bounds only how late a group that was dropped without being closed ends an idle engine."""

_PROTOCOL = re.compile(r"^can't listen on (tcp|udp) ")

_logger = logging.getLogger("qanat.relay")


@dataclass(frozen=True, slots=True)
class Bound:
    """Listening sockets that the engine holds for one endpoint."""

    handle: int
    tcp_address: str | None
    udp_address: str | None


class _Shared:
    """A running engine, its events thread, and who gets which events."""

    def __init__(self, native: Engine, pipe_size: int) -> None:
        self.native = native
        self.pipe_size = pipe_size
        self.sinks: dict[int, Sink] = {}
        self.joining = 0
        """Groups that are being opened or closed and have no sink."""
        self.deciding: Deciding | None = None
        """There since the first group with hooks."""
        self.gone: str | None = None
        """Why the engine can't be used any more."""
        # Looked up while everything is there: at interpreter exit imports fail.
        self._error: type[Exception] = _native().EngineError
        self.rounds: int = 0
        """How many times the events thread came back from fetching and has dispatched it all."""
        self._thread = threading.Thread(target=self._fetch, name="qanat-events", daemon=True)
        self._thread.start()

    @property
    def on_events_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def end(self, why: str) -> None:
        """Close the engine and wait for its threads; the events thread delivers what is left."""
        self.gone = why
        if self.deciding is not None:
            self.deciding.close()
        self.native.shutdown()
        if not self.on_events_thread:
            # A callback that hangs must not keep the program from ending.
            self._thread.join(timeout=5.0)

    def close_group(self, group: int) -> None:
        """Close whatever the group has; nothing, if the engine has ended meanwhile."""
        try:
            self.native.close_group(group)
        except self._error as error:
            if getattr(error, "code", None) != "closed":
                raise

    def flush(self, group: int, timeout: float) -> None:
        """Wait until every event that is in the engine now has been dispatched."""
        if self.on_events_thread:
            return
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.gone is None:
            rounds = self.rounds
            if json.loads(self.native.stats(group))["events"]["queued"] == 0:
                # What the thread may have in its hands takes it a moment; if it waits for events
                # no round ends, and that is the answer.
                settled = time.monotonic() + 0.03
                while self.rounds == rounds and time.monotonic() < settled:
                    time.sleep(0.002)
                if self.rounds == rounds:
                    return
            else:
                time.sleep(0.002)

    def _fetch(self) -> None:
        while True:
            try:
                batch = self.native.next_events(_FETCH_SECONDS)
            except self._error as error:
                if getattr(error, "code", None) != "closed":
                    _logger.exception("the engine gives no events any more")
                return
            self._dispatch(batch)
            self.rounds += 1
            if not self.sinks:
                _end_if_idle(self)

    def _dispatch(self, batch: Iterable[str]) -> None:
        by_group: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for text in batch:
            event = json.loads(text)
            by_group[event.get("group", -1)].append(event)
        for group, events in by_group.items():
            sink = self.sinks.get(group)
            if sink is None:
                continue
            try:
                sink(events)
            except Exception:
                _logger.exception("events of the engine could not be handed on")


class Group:
    """The endpoints of one relay in the engine. All methods may be called from any thread.

    Every method but ``leave`` raises EngineClosed when the engine is gone.
    """

    __slots__ = ("_shared", "id")

    def __init__(self, shared: _Shared, id: int) -> None:
        self._shared = shared
        self.id: int = id

    @property
    def usable(self) -> bool:
        return self._shared.gone is None

    @property
    def workers(self) -> int:
        return self._engine.workers

    def set_limits(self, limits: LimitsPlan) -> None:
        with _translated():
            self._engine.set_group_limits(self.id, to_json(limits))

    def watch(self, ended: bool) -> None:
        """Whether the sink is to get the records of ended flows."""
        with _translated():
            self._engine.watch_group(self.id, ended)

    def bind(
        self, plan: EndpointPlan, *, tcp_fd: int = -1, udp_fd: int = -1, takeover: bool = False
    ) -> Bound:
        """Make the listening sockets of an endpoint, without serving it yet.

        Raises BindError, and ConfigError for a plan that the engine does not understand.
        """
        with _translated(plan):
            return Bound(
                *self._engine.bind(
                    self.id,
                    to_json(plan),
                    tcp_fd=tcp_fd,
                    udp_fd=udp_fd,
                    takeover=takeover,
                )
            )

    def start(self, handles: list[int]) -> None:
        with _translated():
            self._engine.start(handles)

    def update(self, handle: int, plan: EndpointPlan, drain: float = -1.0) -> None:
        with _translated(plan):
            self._engine.update(handle, to_json(plan), drain)

    def close(self, handle: int, drain: float = -1.0) -> None:
        with _translated():
            self._engine.close(handle, drain)

    def flows(self) -> list[dict[str, Any]]:
        with _translated():
            flows: list[dict[str, Any]] = json.loads(self._engine.flows(self.id))
        return flows

    def stats(self) -> dict[str, Any]:
        with _translated():
            stats: dict[str, Any] = json.loads(self._engine.stats(self.id))
        return stats

    def kill(self, flow: int) -> bool:
        with _translated():
            return self._engine.kill(self.id, flow)

    def kill_all(self) -> int:
        with _translated():
            return self._engine.kill_all(self.id)

    def open_flows(self) -> int:
        with _translated():
            return self._engine.open_flows(self.id)

    def set_hooks(self, hooks: Mapping[str, Any], make: MakeDeciding) -> None:
        """Who decides about the flows of this group from now on, by the calls in its plans."""
        engine, shared = self._engine, self._shared
        with _lock:
            if shared.deciding is None and hooks:
                with _translated():
                    fd = engine.listen_to_questions()
                shared.deciding = make(fd, engine.take_questions, engine.answer)
        if shared.deciding is not None:
            shared.deciding.set(self.id, hooks)

    def desk(self) -> Desk:
        """A new place where legs and flows that Python holds report, to be shut down by whoever
        asked for it."""
        with _translated():
            return _native().Desk(self._engine, self.id)  # type: ignore[no-any-return]

    def forget_names(self) -> None:
        """Drop all cached names, those of the other relays too."""
        with _translated():
            self._engine.flush_resolvers()

    def flush_events(self, timeout: float) -> None:
        """Wait until the sink got every event that has happened so far."""
        self._shared.flush(self.id, timeout)

    def leave(self) -> None:
        """Close whatever the group has and forget it; the last one to leave ends the engine."""
        if not self.usable:
            return
        shared = self._shared
        # Counted until the group is closed, or another leaver would end the engine under it.
        with _lock:
            shared.joining += 1
        try:
            shared.sinks.pop(self.id, None)
            shared.close_group(self.id)
            if shared.deciding is not None:
                shared.deciding.set(self.id, {})
        finally:
            with _lock:
                shared.joining -= 1
        _end_if_idle(shared)

    def abandon(self) -> bool:
        """Like ``leave`` for a group that nobody holds any more; False if there was nothing left.

        Takes no lock: the garbage collector calls it, wherever in the program that may be. The
        engine is ended by the events thread, if this was the last group.
        """
        if not self.usable or self._shared.sinks.pop(self.id, None) is None:
            return False
        self._shared.close_group(self.id)
        if self._shared.deciding is not None:
            self._shared.deciding.forget(self.id)
        return True

    @property
    def _engine(self) -> Engine:
        if self._shared.gone is not None:
            raise EngineClosed(self._shared.gone)
        return self._shared.native


def open_group(limits: LimitsPlan, sink: Sink, *, workers: int = 0, pipe_size: int = 0) -> Group:
    """Join the engine of this process, starting it if it is not running.

    ``workers`` (0: one per core) and ``pipe_size`` (bytes, 0: adaptive) hold from the first group
    to the last; a later one that asks for something else is warned and gets what is there.
    """
    with _lock:
        shared = _running(workers, pipe_size)
        shared.joining += 1
    try:
        with _translated():
            id = shared.native.open_group(to_json(limits))
        shared.sinks[id] = sink
    finally:
        with _lock:
            shared.joining -= 1
        _end_if_idle(shared)
    running = shared.native.workers
    if workers not in (0, running) or pipe_size not in (0, shared.pipe_size):
        warnings.warn(
            f"the engine of this process already runs, with {running} workers and a pipe size of "
            f"{shared.pipe_size} bytes; another relay's wish for {workers} and {pipe_size} is "
            "not followed (0: no wish)",
            RuntimeWarning,
            stacklevel=2,
        )
    return Group(shared, id)


def _running(workers: int, pipe_size: int) -> _Shared:
    global _current
    if _current is None:
        with _translated():
            native = _native().Engine(workers=workers, pipe_size=pipe_size)
        _current = _Shared(native, pipe_size)
        _alive.add(_current)
    return _current


def _end_if_idle(shared: _Shared) -> None:
    global _current
    with _lock:
        if shared.sinks or shared.joining or _current is not shared:
            return
        _current = None
    # Not under the lock, for which the events thread may be waiting.
    shared.end("the relay was stopped")
    _alive.discard(shared)


def _at_exit() -> None:
    """Threads that are inside native code when the interpreter is taken down can't come back."""
    for shared in list(_alive):
        if shared.gone is not None:
            continue
        if shared.sinks:
            text = f"{len(shared.sinks)} relay(s) still ran when the interpreter exited"
            warnings.warn(text, ResourceWarning, stacklevel=1)
        shared.end("the interpreter is exiting")


def _after_fork_in_child() -> None:
    """Only the thread that called fork goes on here: the engine's are gone, its descriptors not.

    They are closed, or the child would hold the parent's ports and connections open.
    """
    global _lock, _current
    _lock = threading.Lock()
    _current = None
    for shared in list(_alive):
        shared.gone = "this process is a fork of the one in which the relay was started"
        shared.native.after_fork_in_child()


@contextmanager
def _translated(plan: EndpointPlan | None = None) -> Iterator[None]:
    """The engine's errors as those of ``qanat.errors``."""
    try:
        yield
    except _native().EngineError as error:
        raise _public(error, plan) from error


def _public(error: Exception, plan: EndpointPlan | None) -> QanatError:
    code: str = getattr(error, "code", "engine")
    text = str(error.args[0]) if error.args else code
    if code == "closed":
        return EngineClosed(text)
    if plan is not None and code == "bind":
        errno: int | None = getattr(error, "errno", None)
        return BindError(plan.id, plan.listen, errno, _why(text, errno))
    if plan is not None and code == "plan":
        return ConfigError([Problem(f"endpoint {plan.id}: {text}")])
    return QanatError(text, code=code)


def _why(text: str, errno: int | None) -> str:
    """The reason alone, as BindError says everything else: ``Address already in use (TCP)``."""
    if errno is None:
        return text
    protocol = _PROTOCOL.search(text)
    return os.strerror(errno) + (f" ({protocol[1].upper()})" if protocol else "")


def _native() -> ModuleType:
    # Loaded with the first relay: configuration and command line get by without the engine.
    from qanat import _engine

    return _engine


_lock = threading.Lock()
_current: _Shared | None = None
_alive: set[_Shared] = set()
"""Every engine that was not ended; in the child of a fork also the parent's, which is kept there
since its threads can't be joined."""

atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)
