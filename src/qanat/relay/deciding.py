"""Puts the engine's questions about flows to hooks, and takes the answers back.

One thread with an event loop takes the questions in batches and runs coroutine functions, all at
the same time; plain functions run on a few threads of their own for each hook. So a hook that is
slow holds up no other, nor any flow that has been decided. Everything that waits is bounded: by
the time that the engine gives, and in number.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from qanat.relay.arrival import Arrival, Refuse
from qanat.relay.hooks import Hook
from qanat.relay.threads import Threads

__all__ = ["Deciding", "answer_of"]

MOST_THREADS: Final = 8
"""For one hook that is a plain function."""

MOST_PENDING: Final = 4_096
"""Decisions of one hook that run or wait for a thread. The engine asks no more for an endpoint;
what it gave up asking may still be running here."""

_QUIET_SECONDS: Final = 1.0
_END_SECONDS: Final = 2.0

_logger = logging.getLogger("qanat.relay")

_Answer = dict[str, Any]


class Deciding:
    """``fd`` is readable while ``take`` has questions; ``give`` takes answers from any thread.

    It begins at once and lives until ``close``.
    """

    def __init__(self, fd: int, take: Callable[[], list[str]], give: Callable[[str], None]) -> None:
        self._fd = fd
        self._take = take
        self._give = give
        self._hooks: dict[int, Mapping[str, Hook]] = {}
        self._running: dict[Hook, _Running] = {}
        # Held to change which hooks there are.
        self._changing = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: deque[_Answer] = deque()
        self._giving = False
        self._ended = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="qanat-hooks", daemon=True)
        self._thread.start()

    def set(self, group: int, hooks: Mapping[str, Hook]) -> None:
        """From now on these answer for the group; without any, its questions are not answered."""
        with self._changing:
            if hooks:
                self._hooks[group] = dict(hooks)
            else:
                self._hooks.pop(group, None)
            kept = {hook for of_group in list(self._hooks.values()) for hook in of_group.values()}
            gone = [self._running.pop(hook) for hook in set(self._running) - kept]
        for running in gone:
            running.close()

    def forget(self, group: int) -> None:
        """Like ``set`` without hooks. Takes no lock: the garbage collector calls it."""
        self._hooks.pop(group, None)

    def close(self) -> None:
        """What still runs is cancelled, or left to itself on its thread."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        # A hook that hangs must not keep the program from ending.
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=_END_SECONDS)

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        loop.add_reader(self._fd, self._ask)
        try:
            loop.run_forever()
        finally:
            self._ended = True
            loop.remove_reader(self._fd)
            for group in list(self._hooks):
                self.set(group, {})
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                loop.run_until_complete(asyncio.wait(self._tasks, timeout=_END_SECONDS))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def _ask(self) -> None:
        for text in self._take():
            question = json.loads(text)
            hook = self._hooks.get(question["group"], {}).get(question["call"])
            running = None if hook is None else self._running_of(hook)
            if running is None:
                self._answer(question["id"], _failed("there is no such hook any more"))
            elif running.pending >= MOST_PENDING:
                self._answer(question["id"], _failed("too many decisions are pending"))
            else:
                self._begin(running, question)

    def _running_of(self, hook: Hook) -> _Running:
        running = self._running.get(hook)
        if running is None:
            with self._changing:
                running = self._running.setdefault(hook, _Running(hook))
        return running

    def _begin(self, running: _Running, question: Mapping[str, Any]) -> None:
        flow: int = question["id"]
        remotes = tuple(question["remotes"])
        arrival = Arrival(
            flow=flow,
            endpoint=question["endpoint"],
            client=question["client"],
            via=question["via"],
            listener=question["listener"],
            first_bytes=bytes.fromhex(question["first_bytes"]),
            remotes=remotes,
        )
        limit: float | None = question["timeout"]
        if running.hook.waits:
            task = self._loop.create_task(self._await(running, arrival, limit))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            running.pending += 1
            return
        until = None if limit is None else time.monotonic() + limit

        def call() -> None:
            if self._ended:
                return
            answer = _failed("the hook took too long")
            if until is None or time.monotonic() < until:
                answer = running.call(arrival)
            self._from_thread(running, flow, answer)

        running.pending += 1
        running.threads.run(call)

    async def _await(self, running: _Running, arrival: Arrival, limit: float | None) -> None:
        try:
            async with asyncio.timeout(limit):
                answer = await running.wait(arrival)
        except TimeoutError:
            # Ours: what the hook raises is an answer.
            answer = _failed("the hook took too long")
        finally:
            running.pending -= 1
        self._answer(arrival.flow, answer)

    def _from_thread(self, running: _Running, flow: int, answer: _Answer) -> None:
        def take() -> None:
            running.pending -= 1
            self._answer(flow, answer)

        try:
            self._loop.call_soon_threadsafe(take)
        except RuntimeError:
            # The loop has ended, and with it everybody who would wait.
            return

    def _answer(self, flow: int, answer: _Answer) -> None:
        """On the loop's thread. Answers that come together go together."""
        self._answers.append({"id": flow, **answer})
        if not self._giving:
            self._giving = True
            self._loop.call_soon(self._give_all)

    def _give_all(self) -> None:
        self._giving = False
        answers = list(self._answers)
        self._answers.clear()
        self._give(json.dumps(answers))


class _Running:
    """One hook at work, and how often it failed."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        self.pending = 0
        self.threads = Threads("qanat-hook", MOST_THREADS)
        self._unsaid = 0
        self._quiet_until = 0.0
        self._logging = threading.Lock()

    def close(self) -> None:
        self.threads.close()

    def call(self, arrival: Arrival) -> _Answer:
        """Of a plain function. Never raises."""
        try:
            return answer_of(self.hook.function(arrival), len(arrival.remotes))
        except BaseException as error:  # sys.exit() here would end a thread that others need
            return self._failed(error)

    async def wait(self, arrival: Arrival) -> _Answer:
        """Of a coroutine function. Raises CancelledError when it is cancelled from outside."""
        try:
            return answer_of(await self.hook.function(arrival), len(arrival.remotes))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self._failed(error)
        except BaseException as error:
            return self._failed(error)

    def _failed(self, error: BaseException) -> _Answer:
        with self._logging:
            now = time.monotonic()
            unsaid, self._unsaid = self._unsaid, 0
            if now < self._quiet_until:
                self._unsaid = unsaid + 1
            else:
                self._quiet_until = now + _QUIET_SECONDS
                more = f" ({unsaid} more failures were not logged)" if unsaid else ""
                _logger.error("hook %s failed%s", self.hook.call, more, exc_info=error)
        return _failed(f"{type(error).__name__}: {error}")


def answer_of(decision: object, remotes: int) -> _Answer:
    """A decision in the engine's words."""
    if decision is None or decision is True:
        return {"answer": "allow"}
    if decision is False:
        decision = Refuse()
    if isinstance(decision, Refuse):
        return {"answer": "refuse", "reason": str(decision.reason)}
    if isinstance(decision, int):
        if 0 <= decision < remotes:
            return {"answer": "remote", "index": decision}
        return {"answer": "refuse", "reason": f"the hook chose remote {decision} of {remotes}"}
    return _failed(f"the hook answered with {type(decision).__name__}, which is no decision")


def _failed(why: str) -> _Answer:
    return {"answer": "failed", "reason": why[:500]}
