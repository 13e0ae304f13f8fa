"""``qanat endpoints``: what a running relay listens on, and what it counted there."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from qanat.cli.asking import ask, control_option, json_option
from qanat.cli.output import emit, emit_json, emit_table, is_terminal
from qanat.cli.quantities import bytes_text, seconds_text

__all__ = ["command"]

_COLUMNS = ("ENDPOINT", "TCP", "UDP", "TARGET", "OPEN", "TOTAL", "UP", "DOWN", "REFUSED", "DROPPED")
_NUMBERS = _COLUMNS[4:]
_HEALTH_COLUMNS = ("ENDPOINT", "REMOTE", "STATE", "FOR", "OPEN", "TOTAL", "FAILS", "REASON")
_HEALTH_NUMBERS = _HEALTH_COLUMNS[3:7]


@click.command("endpoints")
@control_option
@json_option
@click.option(
    "--health",
    "only_health",
    is_flag=True,
    help="List the remotes of endpoints that balance or fail over, and how each of them stands.",
)
def command(control: str | None, as_json: bool, only_health: bool) -> int:
    """List the endpoints of a running relay with their counters.

    A person at a terminal also sees how the remotes stand; a script asks for that with --health.
    """
    with ask(control) as relay:
        endpoints = relay.get("/endpoints")
    if as_json:
        emit_json(endpoints)
        return 0
    rounded = is_terminal(sys.stdout)
    if not only_health:
        emit_table(_COLUMNS, [_row(entry, rounded) for entry in endpoints], right=_NUMBERS)
    health = [
        _health_row(entry["endpoint"], remote)
        for entry in endpoints
        for remote in entry.get("health") or ()
    ]
    if only_health:
        emit_table(_HEALTH_COLUMNS, health, right=_HEALTH_NUMBERS)
    elif health and rounded:
        emit()
        emit_table(_HEALTH_COLUMNS, health, right=_HEALTH_NUMBERS)
    return 0


def _health_row(endpoint: str, remote: Mapping[str, Any]) -> list[str]:
    """How one remote stands, of an endpoint that balances or watches its remotes."""
    age = max(0.0, time.time() - remote["since"])
    return [
        endpoint,
        remote["target"],
        remote["state"],
        seconds_text(age),
        str(remote["open"]),
        str(remote["total"]),
        str(remote["fails"]),
        remote["reason"] or "-",
    ]


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
