"""``qanat top``: the busiest flows of a running relay, live.

On a terminal a table that renews itself and obeys keys; anywhere else one table of one look.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from qanat.cli.asking import ask, control_option, filter_options, json_option
from qanat.cli.output import emit_json, emit_table, is_terminal, printable, wants_colour
from qanat.cli.quantities import bytes_text, rate_text, seconds_text
from qanat.cli.rates import SORTS, Rates, Row, ordered
from qanat.observe.control_client import ControlClient

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["command", "fitting"]

_COLUMNS = (
    "ID",
    "KIND",
    "CLIENT",
    "TARGET",
    "STATE",
    "UP/s",
    "DOWN/s",
    "UP",
    "DOWN",
    "AGE",
    "IDLE",
)
_NUMBERS = ("ID", "UP/s", "DOWN/s", "UP", "DOWN", "AGE", "IDLE")
_LEAST_MISSED = ("KIND", "STATE", "IDLE", "UP", "DOWN", "AGE", "TARGET")
_GAP = 2
_HELP = "q quit   s sort by next   r reverse   p pause   + - slower, faster"
_SHORTEST, _LONGEST = 0.2, 60.0


@click.command("top")
@filter_options
@click.option("--sort", type=click.Choice(SORTS), default="rate", help="What comes first; rate.")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(_SHORTEST, _LONGEST),
    default=1.0,
    help="Time between two looks; 1.",
)
@click.option("--once", is_flag=True, help="Show one table and end.")
@control_option
@json_option
def command(
    endpoint: str | None,
    client: str | None,
    sort: str,
    interval: float,
    once: bool,
    control: str | None,
    as_json: bool,
) -> int:
    """Watch the busiest flows of a running relay.

    \b
    q  quit              s  sort by the next column
    r  reverse           p  pause
    +  look less often   -  look more often
    """
    with ask(control) as relay:
        view = _View(relay, {"endpoint": endpoint, "client": client}, sort, interval)
        if as_json or once or not is_terminal(sys.stdout):
            return _show_once(view, as_json)
        return _show_live(view)


class _View:
    """What is looked at, and how it is sorted."""

    def __init__(
        self, relay: ControlClient, wanted: Mapping[str, str | None], sort: str, interval: float
    ) -> None:
        self._relay = relay
        self._wanted = wanted
        self._rates = Rates()
        self.sort = sort
        self.interval = interval
        self.reverse = False
        self.paused = False
        self._rows: list[Row] = []

    def look(self) -> None:
        if not self.paused:
            flows = self._relay.get("/flows", **self._wanted)
            self._rows = self._rates.look(flows, time.monotonic())

    @property
    def rows(self) -> list[Row]:
        return ordered(self._rows, self.sort, reverse=self.reverse)

    @property
    def title(self) -> str:
        up, down = sum(row.up for row in self._rows), sum(row.down for row in self._rows)
        count = len(self._rows)
        order = f"by {self.sort}{', reversed' if self.reverse else ''}"
        state = "PAUSED" if self.paused else f"every {self.interval:g} s"
        flows = "1 flow" if count == 1 else f"{count} flows"
        return f"{flows}   up {rate_text(up)}   down {rate_text(down)}   {order}   {state}"

    def press(self, key: str) -> bool:
        """Obey a key; whether to go on."""
        match key:
            case "q" | "Q" | "\x03" | "\x04":
                return False
            case "s":
                self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
            case "S":
                self.sort = SORTS[SORTS.index(self.sort) - 1]
            case "r":
                self.reverse = not self.reverse
            case "p" | " ":
                self.paused = not self.paused
            case "+":
                self.interval = min(self.interval * 2, _LONGEST)
            case "-":
                self.interval = max(self.interval / 2, _SHORTEST)
        return True


def _show_once(view: _View, as_json: bool) -> int:
    view.look()
    time.sleep(view.interval)
    view.look()
    if as_json:
        emit_json([{**row.flow, "rate_up": row.up, "rate_down": row.down} for row in view.rows])
    else:
        rounded = is_terminal(sys.stdout)
        emit_table(_COLUMNS, [_cells(row, rounded) for row in view.rows], right=_NUMBERS)
    return 0


def _show_live(view: _View) -> int:
    from rich.console import Console
    from rich.live import Live

    console = Console(no_color=not wants_colour(sys.stdout), highlight=False)
    with _keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        going = True
        while going:
            view.look()
            live.update(_screen(view, console), refresh=True)
            due = time.monotonic() + view.interval
            while going and (left := due - time.monotonic()) > 0:
                pressed = keys.within(left)
                for key in pressed:
                    going = going and view.press(key)
                if pressed and going:
                    live.update(_screen(view, console), refresh=True)
    return 0


def _screen(view: _View, console: Console) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    room = max(console.height - 4, 1)
    rows = view.rows
    cells = [_cells(row, rounded=True) for row in rows[:room]]
    shown = fitting(cells, console.width)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for index in shown:
        column = _COLUMNS[index]
        table.add_column(column, justify="right" if column in _NUMBERS else "left", no_wrap=True)
    for row in cells:
        table.add_row(*(Text(row[index]) for index in shown))
    hidden = len(rows) - room
    more = f"   ({hidden} more)" if hidden > 0 else ""
    heads = [Text(view.title, style="bold"), Text(_HELP + more, style="dim")]
    for head in heads:
        head.no_wrap, head.overflow = True, "ellipsis"
    return Group(*heads, table)


def fitting(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The columns for which there is room, least missed ones left out first."""
    widths = [max(len(name), *(len(row[i]) for row in rows), 0) for i, name in enumerate(_COLUMNS)]
    shown = list(range(len(_COLUMNS)))
    for name in _LEAST_MISSED:
        if sum(widths[index] + _GAP for index in shown) - _GAP <= width:
            break
        shown.remove(_COLUMNS.index(name))
    return shown


def _cells(row: Row, rounded: bool) -> list[str]:
    flow = row.flow
    client = flow["client"]
    if user := flow.get("user"):
        client += f" ({printable(user)})"
    cells = [str(flow["id"]), flow["protocol"], client, flow["target"], flow["state"]]
    rates, sizes = (row.up, row.down), (flow["bytes_up"], flow["bytes_down"])
    times = (flow["duration"], flow["idle"])
    if rounded:
        cells += [rate_text(rate) for rate in rates]
        cells += [bytes_text(size) for size in sizes]
        cells += [seconds_text(seconds) for seconds in times]
    else:
        cells += [f"{rate:.0f}" for rate in rates]
        cells += [str(size) for size in sizes]
        cells += [f"{seconds:.3f}" for seconds in times]
    return cells


class _Keys:
    """Single keys of the terminal, or none if there is none to ask."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def within(self, seconds: float) -> Sequence[str]:
        if self._descriptor is None:
            time.sleep(seconds)
            return ()
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        if not ready:
            return ()
        read = os.read(self._descriptor, 64)
        # A terminal that is gone reads as an end for ever.
        return ["q"] if not read else list(read.decode("ascii", "replace"))


@contextmanager
def _keys() -> Iterator[_Keys]:
    if not sys.stdin.isatty():
        yield _Keys(None)
        return
    descriptor = sys.stdin.fileno()
    before: list[Any] = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield _Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
