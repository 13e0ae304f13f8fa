"""``qanat flows``: the flows that are alive, as a table, as lines or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from qanat.cli.asking import ask, control_option, filter_options, json_option
from qanat.cli.output import emit_json, emit_table, is_terminal, printable
from qanat.cli.quantities import bytes_text, seconds_text

__all__ = ["command"]

_COLUMNS = (
    "ID",
    "KIND",
    "CLIENT",
    "ENDPOINT",
    "TARGET",
    "PEER",
    "STATE",
    "UP",
    "DOWN",
    "AGE",
    "IDLE",
)
_NUMBERS = ("ID", "UP", "DOWN", "AGE", "IDLE")


@click.command("flows")
@filter_options
@control_option
@json_option
def command(endpoint: str | None, client: str | None, control: str | None, as_json: bool) -> int:
    """List the flows that are alive in a running relay, oldest first.

    On a terminal sizes and times are rounded; in a pipe they are plain bytes and seconds, in
    columns between tabs.
    """
    with ask(control) as relay:
        flows = relay.get("/flows", endpoint=endpoint, client=client)
    if as_json:
        emit_json(flows)
        return 0
    rounded = is_terminal(sys.stdout)
    columns = list(_COLUMNS)
    flows.sort(key=lambda flow: flow["started"])
    rows = [_row(flow, rounded) for flow in flows]
    if any(flow.get("user") for flow in flows):
        # Last, so that the others stay where scripts look for them.
        columns.append("USER")
        for flow, row in zip(flows, rows, strict=True):
            row.append(printable(flow.get("user") or "-"))
    emit_table(columns, rows, right=_NUMBERS)
    return 0


def _row(flow: Mapping[str, Any], rounded: bool) -> list[str]:
    sizes = [flow["bytes_up"], flow["bytes_down"]]
    times = [flow["duration"], flow["idle"]]
    return [
        str(flow["id"]),
        flow["protocol"],
        flow["client"],
        flow["endpoint"],
        flow["target"],
        flow["peer"] or "-",
        flow["state"],
        *(bytes_text(size) if rounded else str(size) for size in sizes),
        *(seconds_text(time) if rounded else f"{time:.3f}" for time in times),
    ]
