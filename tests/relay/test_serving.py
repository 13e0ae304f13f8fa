"""A relay as a service, in this process and on a made-up engine."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from qanat.config.models import Config, Endpoint
from qanat.errors import ConfigError, Problem, QanatError
from qanat.observe.logs import Logs, LogSettings
from qanat.observe.notify import Notifier
from qanat.process.listeners import Listeners
from qanat.process.signals import Signals
from qanat.relay.flow_log import FlowLog
from qanat.relay.relay import Relay
from qanat.relay.serving import Rereading, Serving
from tests.relay.fake_engine import FakeEngine, FakeModule
from tests.support.wait import wait_until_async

CONFIG = Config(endpoints=[Endpoint(listen="127.0.0.1:5000", remote="a:1")])


class Service:
    """Everything around one Serving."""

    def __init__(self, fake: FakeModule, directory: Path) -> None:
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(directory / "notify"))
        self.manager.setblocking(False)
        self.settings = LogSettings("info", str(directory / "log"))
        self.logs = Logs(self.settings)
        self.relay = Relay(config=CONFIG)
        self.relay.start()
        self.engine: FakeEngine = fake.made[-1]
        self.signals = Signals()
        self.reread: Callable[[], Rereading] = lambda: Rereading(CONFIG, self.settings, 0.2)
        self.serving = Serving(
            self.relay,
            logs=self.logs,
            flow_log=FlowLog(self.relay, self.logs),
            signals=self.signals,
            notifier=Notifier(
                {"NOTIFY_SOCKET": str(directory / "notify"), "WATCHDOG_USEC": "60000"}
            ),
            listeners=Listeners(),
            version="1.2",
            reread=lambda: self.reread(),
            drain=0.2,
            known_files={},
        )

    def told(self) -> list[str]:
        notices = []
        try:
            while True:
                notices += self.manager.recv(4096).decode().splitlines()
        except BlockingIOError:
            return notices

    def run(self, test: Callable[[], Coroutine[Any, Any, None]]) -> int:
        """Serve while ``test`` runs, then stop; how many flows were cut."""

        async def main() -> int:
            running = asyncio.ensure_future(self.serving.run())
            try:
                await wait_until_async(lambda: "READY=1" in self.told())
                await test()
            finally:
                self.serving.stop(now=False)
            return await running

        return asyncio.run(main())

    def close(self) -> None:
        self.relay.stop()
        self.signals.restore()
        self.logs.close()
        self.manager.close()


@pytest.fixture
def service(fake: FakeModule, tmp_path: Path) -> Iterator[Service]:
    before = logging.getLogger().level
    made = Service(fake, tmp_path)
    yield made
    made.close()
    logging.getLogger().setLevel(before)


def test_no_sign_of_life_while_the_engine_gives_none(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    answers.set()
    stats = service.engine.stats

    def stuck(group: int) -> str:
        answers.wait(10)
        return stats(group)

    monkeypatch.setattr(service.engine, "stats", stuck)

    async def test() -> None:
        await wait_until_async(lambda: "WATCHDOG=1" in service.told())
        answers.clear()
        await asyncio.sleep(0.1)
        service.told()
        await asyncio.sleep(0.3)
        assert "WATCHDOG=1" not in service.told()
        answers.set()
        await wait_until_async(lambda: "WATCHDOG=1" in service.told())

    service.run(test)


def test_reloads_that_wait_are_one(service: Service) -> None:
    reading, go_on = threading.Event(), threading.Event()
    count = 0

    def slow() -> Rereading:
        nonlocal count
        count += 1
        reading.set()
        go_on.wait(10)
        return Rereading(CONFIG, service.settings, 0.2)

    service.reread = slow

    async def test() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        await wait_until_async(reading.is_set)
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.01)
        go_on.set()
        await wait_until_async(lambda: count == 2)
        await asyncio.sleep(0.1)
        assert count == 2

    service.run(test)


def test_a_refused_reload_is_counted_and_told(service: Service, tmp_path: Path) -> None:
    def refuse() -> Rereading:
        raise ConfigError([Problem("wrong", file="f", line=number) for number in range(1, 9)])

    service.reread = refuse

    async def test() -> None:
        with pytest.raises(ConfigError):
            await service.serving.reload()
        text = (tmp_path / "log").read_text()
        assert text.count("reload refused, nothing has changed: f:") == 8
        metrics = await asyncio.to_thread(service.serving.metrics)
        assert isinstance(metrics.body, bytes)
        assert b'qanat_reloads_total{result="failed"} 1.0' in metrics.body
        notices = service.told()
        assert "RELOADING=1" in notices
        assert "READY=1" in notices

    service.run(test)


def test_a_defect_in_a_reload_does_not_end_the_relay(service: Service, tmp_path: Path) -> None:
    def broken() -> Rereading:
        raise ZeroDivisionError

    service.reread = broken

    async def test() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        await wait_until_async(lambda: "ZeroDivisionError" in (tmp_path / "log").read_text())
        assert service.relay.running

    service.run(test)


def test_the_engine_forgets_names_at_a_reload(service: Service) -> None:
    async def test() -> None:
        await service.serving.reload()
        assert ("flush_resolvers",) in service.engine.calls

    service.run(test)


def test_how_many_were_cut_is_the_result(service: Service) -> None:
    async def test() -> None:
        (group,) = service.engine.live
        service.engine.carry(group, 1)
        service.engine.carry(group, 2)

    began = time.monotonic()
    assert service.run(test) == 2
    assert time.monotonic() - began >= 0.2
    with pytest.raises(QanatError):
        service.relay.flows()


def test_a_third_signal_is_not_argued_with(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    held = threading.Event()
    monkeypatch.setattr(service.relay, "stop", lambda _drain=0.0: held.wait(10) and 0)

    async def test() -> None:
        for number in range(3):
            assert codes == []
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.05 * (number + 1))
        await wait_until_async(lambda: codes == [1])
        held.set()

    service.run(test)
    monkeypatch.undo()
