"""How commands speak: results on stdout, everything else on stderr, colour only for people.

Three readers are served: a terminal (tables, colour), a pipe (tab-separated lines under one header)
and a program (``--json``). Knows errors and click; rich is imported only once a table meets a
terminal. Holds no state.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

import click

from qanat.errors import Problem

__all__ = [
    "complain",
    "emit",
    "emit_json",
    "emit_table",
    "is_terminal",
    "notice",
    "printable",
    "program_name",
    "report_problems",
    "wants_colour",
]


def is_terminal(stream: IO[str]) -> bool:
    """Whether a person is probably looking at ``stream``."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def wants_colour(stream: IO[str]) -> bool:
    """Colour goes to terminals that can show it, and never against ``NO_COLOR``."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return is_terminal(stream)


def program_name() -> str:
    """The name the program was started under, for the front of its messages."""
    context = click.get_current_context(silent=True)
    if context is None:
        return "qanat"
    return context.find_root().info_name or "qanat"


def emit(text: str = "") -> None:
    """One line of the result."""
    click.echo(_writable(text), color=wants_colour(sys.stdout))


def emit_json(value: Any) -> None:
    """The result for a program."""
    import json

    text = json.dumps(value, indent=2, ensure_ascii=False)
    # Names of files need not be text; JSON has escapes of its own for what is none.
    emit(text if _writable(text) == text else json.dumps(value, indent=2))


def complain(text: str, *, program: str | None = None) -> None:
    """What went wrong, each line under the program's name, on stderr."""
    _to_stderr(text, program=program, label="", colour="red")


def notice(text: str, *, program: str | None = None) -> None:
    """What is worth knowing but stops nothing, on stderr."""
    _to_stderr(text, program=program, label="warning: ", colour="yellow")


def report_problems(problems: Iterable[Problem], *, program: str | None = None) -> None:
    """One line for each mistake, in the order in which they were found."""
    for problem in problems:
        if problem.severity == "warning":
            notice(str(problem), program=program)
        else:
            complain(str(problem), program=program)


def emit_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Rows for whoever reads: aligned on a terminal, tab-separated in a pipe.

    ``right`` names the columns whose cells are numbers.
    """
    if not is_terminal(sys.stdout):
        emit("\t".join(columns))
        for row in rows:
            emit("\t".join(_one_line(cell) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # Folded, never cut: an address that lost its end would be useless.
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(no_color=not wants_colour(sys.stdout), highlight=False).print(table)


def _to_stderr(text: str, *, program: str | None, label: str, colour: str) -> None:
    coloured = wants_colour(sys.stderr)
    for line in text.split("\n"):
        shown = click.style(label, fg=colour) if label else ""
        name = f"{program or program_name()}:"
        front = name if label else click.style(name, fg=colour)
        click.echo(f"{front} {shown}{printable(line)}", err=True, color=coloured)


def printable(text: str) -> str:
    """``text`` on one line, and with nothing in it that would command a terminal."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in text
    )


def _writable(text: str) -> str:
    """``text`` with escapes for what the encoding of stdout has no form for."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _one_line(cell: str) -> str:
    return " ".join(cell.split())
