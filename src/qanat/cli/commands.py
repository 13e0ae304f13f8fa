"""The list of commands, and a click group that imports one only when it is called.

Knows the names, the sections and one sentence for each; what a command does is in the module of
its name, which offers it as ``command``. Help and completion work from this list alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["SECTIONS", "CommandGroup", "Entry", "load_command", "nearest"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One command as the overview shows it."""

    name: str
    summary: str

    @property
    def module(self) -> str:
        return f"qanat.cli.{self.name}"


SECTIONS: Mapping[str, tuple[Entry, ...]] = {
    "Relay": (Entry("relay", "Carry TCP and UDP flows from listening addresses to targets."),),
    "Proxies": (Entry("proxy", "Serve SOCKS5 and HTTP clients as their proxy."),),
    "Configuration files": (
        Entry("check", "Show every mistake in configuration files."),
        Entry("diff", "Show what a reload from one file to another would do."),
        Entry("convert", "Rewrite a configuration in another format."),
        Entry("schema", "Print the JSON Schema of configuration files."),
    ),
    "A running relay": (
        Entry("flows", "List the flows that are alive."),
        Entry("top", "Watch the busiest flows, live."),
        Entry("endpoints", "List the endpoints with their counters."),
        Entry("kill", "End one flow now."),
        Entry("reload", "Make it read its configuration again."),
        Entry("stop", "Make it drain its flows and end."),
    ),
    "This program": (
        Entry("version", "Show versions and what this kernel lets us do."),
        Entry("completion", "Print the completion script for a shell."),
    ),
}

_ENTRIES: Mapping[str, Entry] = {
    entry.name: entry for entries in SECTIONS.values() for entry in entries
}


def load_command(name: str) -> click.Command:
    """Import one command of the list."""
    entry = _ENTRIES[name]
    command = importlib.import_module(entry.module).command
    if not isinstance(command, click.Command):
        raise TypeError(f"{entry.module}.command is not a command")
    command.short_help = entry.summary
    return command


def nearest(word: str, known: tuple[str, ...]) -> str:
    """``; did you mean 'X'?``, or nothing when no known word is near."""
    import difflib  # only a mistake pays for it

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


class CommandGroup(click.Group):
    """The commands of the list, each imported at its first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load_command(cmd_name) if cmd_name in _ENTRIES else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _ENTRIES and not ctx.resilient_parsing:
            hint = nearest(name, tuple(_ENTRIES))
            raise click.UsageError(f"no such command: {name}{hint}", ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, entries in SECTIONS.items():
            with formatter.section(section):
                # One column for all sections, since each is laid out alone.
                formatter.write_dl([(entry.name.ljust(13), entry.summary) for entry in entries])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        # Not the inherited way: it would import every command for its one line of help.
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(entry.name, help=entry.summary)
            for entry in _ENTRIES.values()
            if entry.name.startswith(incomplete)
        ]
