"""Access lines, made only while they are wanted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from qanat.config.models import Config, Endpoint
from qanat.observe.logs import Logs, LogSettings
from qanat.relay.flow_log import FlowLog
from qanat.relay.relay import Relay
from tests.relay.fake_engine import FakeModule


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    before = logging.getLogger().level
    made = Logs(LogSettings("warn", str(tmp_path / "log")))
    yield made
    made.close()
    logging.getLogger().setLevel(before)


def test_the_engine_makes_no_records_that_nobody_reads(fake: FakeModule, logs: Logs) -> None:
    relay = Relay(config=Config(endpoints=[Endpoint(listen="127.0.0.1:0", remote="a:1")]))
    flow_log = FlowLog(relay, logs)
    relay.start()
    try:
        (engine,) = fake.made
        assert not any(engine.watched.values())
        logs.apply(LogSettings("info", logs.settings.output))
        flow_log.follow()
        assert any(engine.watched.values())
    finally:
        relay.stop()
