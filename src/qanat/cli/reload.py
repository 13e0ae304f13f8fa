"""``qanat reload``: have a running relay read its configuration again, and say what came of it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from qanat.cli.asking import ask, control_option, json_option
from qanat.cli.output import emit, emit_json, notice

__all__ = ["command"]

_SIGNS = {"added": "+", "removed": "-", "changed": "~", "rebound": "!"}
_SHOWN = 50


@click.command("reload")
@control_option
@json_option
def command(control: str | None, as_json: bool) -> int:
    """Make a running relay read its configuration again.

    Shows the endpoints that were added (+), removed (-), changed (~) and changed with a new
    listening socket (!). If the configuration has a mistake, nothing changes, every mistake is
    shown, and the exit code is 1.
    """
    with ask(control) as relay:
        report = relay.post("/reload")
    for warning in report["warnings"]:
        notice(warning)
    if as_json:
        emit_json(report)
        return 0
    changed = len(report["changed"]) + len(report["rebound"])
    emit(
        f"{len(report['added'])} added, {len(report['removed'])} removed, "
        f"{changed} changed, {len(report['untouched'])} untouched"
    )
    for word, sign in _SIGNS.items():
        _list(sign, report[word])
    return 0


def _list(sign: str, endpoints: Sequence[str]) -> None:
    for endpoint in endpoints[:_SHOWN]:
        emit(f"{sign} {endpoint}")
    if len(endpoints) > _SHOWN:
        emit(f"{sign} ... and {len(endpoints) - _SHOWN} more")
