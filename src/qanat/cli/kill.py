"""``qanat kill``: end flows now."""

from __future__ import annotations

import click

from qanat.cli.asking import ask, control_option, json_option
from qanat.cli.output import complain, emit, emit_json
from qanat.errors import ControlError

__all__ = ["command"]


@click.command("kill")
@click.argument("flows", metavar="FLOW...", nargs=-1, required=True, type=click.IntRange(min=0))
@control_option
@json_option
def command(flows: tuple[int, ...], control: str | None, as_json: bool) -> int:
    """End flows of a running relay now, by the numbers that 'qanat flows' shows.

    Both sides see a reset. Ends with 1 if one of them is not alive.
    """
    killed, missing = [], []
    with ask(control) as relay:
        for flow in flows:
            try:
                relay.post(f"/flows/{flow}/kill")
            except ControlError as error:
                if error.code != "flow":
                    raise
                missing.append(flow)
                complain(str(error))
            else:
                killed.append(flow)
                if not as_json:
                    emit(f"killed {flow}")
    if as_json:
        emit_json({"killed": killed, "missing": missing})
    return 1 if missing else 0
