"""Signals before and after there is a loop."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from qanat.process.signals import HANDLED, Signals
from tests.support.wait import wait_until_async


def test_early_signals_are_delivered_late_and_others_at_once() -> None:
    before = signal.getsignal(signal.SIGHUP)
    signals = Signals()
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        signals.hold()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.early == (signal.SIGHUP, signal.SIGTERM)
        came: list[str] = []

        async def main() -> None:
            signals.deliver(
                {
                    signal.SIGHUP: lambda: came.append("hup"),
                    signal.SIGTERM: lambda: came.append("term"),
                    signal.SIGUSR1: lambda: came.append("usr1"),
                }
            )
            assert came == ["hup", "term"]
            os.kill(os.getpid(), signal.SIGUSR1)
            await wait_until_async(lambda: came == ["hup", "term", "usr1"])
            signals.leave_loop()

        asyncio.run(main())
        for number in HANDLED:
            os.kill(os.getpid(), number)
        assert came == ["hup", "term", "usr1"]
    finally:
        signals.restore()
    assert signal.getsignal(signal.SIGHUP) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_to_stop_ends_a_start(number: signal.Signals, code: int) -> None:
    signals = Signals()
    try:
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), number)
        assert ended.value.code == code
        os.kill(os.getpid(), number)
    finally:
        signals.restore()
