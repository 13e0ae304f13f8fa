"""``qanat endpoints``: what a running relay listens on, and what it counted there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from qanat.cli.asking import ask, control_option, json_option
from qanat.cli.output import emit_json, emit_table, is_terminal
from qanat.cli.quantities import bytes_text

__all__ = ["command"]

_COLUMNS = ("ENDPOINT", "TCP", "UDP", "TARGET", "OPEN", "TOTAL", "UP", "DOWN", "REFUSED", "DROPPED")
_NUMBERS = _COLUMNS[4:]


@click.command("endpoints")
@control_option
@json_option
def command(control: str | None, as_json: bool) -> int:
    """List the endpoints of a running relay with their counters."""
    with ask(control) as relay:
        endpoints = relay.get("/endpoints")
    if as_json:
        emit_json(endpoints)
        return 0
    rounded = is_terminal(sys.stdout)
    emit_table(_COLUMNS, [_row(entry, rounded) for entry in endpoints], right=_NUMBERS)
    return 0


def _row(entry: Mapping[str, Any], rounded: bool) -> list[str]:
    sizes = [entry["bytes_up"], entry["bytes_down"]]
    return [
        entry["endpoint"],
        entry["tcp_address"] or "-",
        entry["udp_address"] or "-",
        "|".join(entry["remotes"]),
        str(entry["open"]),
        str(entry["total"]),
        *(bytes_text(size) if rounded else str(size) for size in sizes),
        str(entry["refused"]),
        str(entry["dropped"]),
    ]
