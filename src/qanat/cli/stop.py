"""``qanat stop``: have a running relay drain its flows and end."""

from __future__ import annotations

import time

import click

from qanat.cli.asking import ask, control_option, json_option
from qanat.cli.output import emit, emit_json
from qanat.observe.control import is_live

__all__ = ["command"]

_PAUSE = 0.05


@click.command("stop")
@click.option("--now", is_flag=True, help="Cut the flows instead of letting them end.")
@click.option("--no-wait", is_flag=True, help="Do not wait for the end.")
@control_option
@json_option
def command(now: bool, no_wait: bool, control: str | None, as_json: bool) -> int:
    """Make a running relay stop accepting, drain its flows, and end.

    Waits until it has ended. A second 'stop --now' cuts a drain short.
    """
    with ask(control) as relay:
        left = relay.post("/stop", now="true" if now else None)["flows"]
        path = relay.path
    if not as_json and left and not now:
        emit(f"waiting for {left} flow{'' if left == 1 else 's'}")
    while not no_wait and is_live(path):
        time.sleep(_PAUSE)
    if as_json:
        emit_json({"flows": left, "stopped": not no_wait})
    elif not no_wait:
        emit("stopped")
    return 0
