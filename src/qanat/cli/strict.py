"""Reads option words exactly: each option once, values that look like options refused.

click is more forgiving than a service's start line should be: it lets the last of two equal options
win and takes ``-r`` as the value of a forgotten ``-l``. Here a line is first brought into one plain
form (``--name=value``), and everything doubtful is a usage error that names the option. Accepted
are ``-l V``, ``-lV``, ``-l=V``, ``--listen V``, ``--listen=V`` and bundled flags (``-du``).
Pure: knows click's parameters, reads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from qanat.cli.commands import nearest

__all__ = ["HELP_NAMES", "StrictCommand", "StrictOption", "plain_form", "shown"]

HELP_NAMES = ("-h", "--help")

_COLUMN = 30


class StrictOption(click.Option):
    """An option of a strict command, with the heading it is listed under."""

    def __init__(
        self,
        declarations: Sequence[str],
        *,
        section: str = "Options",
        bare: str | None = None,
        **attributes: Any,
    ) -> None:
        """``bare`` is the value that the option has when none is given."""
        self.section = section
        self.bare = bare
        super().__init__(list(declarations), **attributes)

    @property
    def shown(self) -> str:
        """``-l/--listen``"""
        return "/".join(self.opts)


class StrictCommand(click.Command):
    """A command whose words are read by :func:`plain_form` and whose help has headings."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Completion asks about unfinished lines; there is nothing to be strict about yet.
        if not ctx.resilient_parsing:
            args = plain_form(self.params, args, ctx=ctx, interspersed=self.allow_interspersed_args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or not isinstance(parameter, click.Option):
                continue
            # One column for all sections, since each is laid out alone.
            record = (record[0].ljust(_COLUMN), record[1])
            if isinstance(parameter, StrictOption):
                sections.setdefault(parameter.section, []).append(record)
            else:
                # The help option is click's own, and the first to look for.
                sections.setdefault("Flags", []).insert(0, record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records, col_max=_COLUMN)


def plain_form(
    parameters: Sequence[click.Parameter],
    words: Sequence[str],
    *,
    ctx: click.Context | None = None,
    interspersed: bool = True,
) -> list[str]:
    """``words`` with every option as ``--name`` or ``--name=value``, positionals at the end.

    Where options may not be ``interspersed``, the first positional (a command) and all that follows
    it are left as they are.
    Raises click.UsageError for an unknown option, a repeated one, a missing value (also one that
    begins with ``-``) and a value where none belongs. The help option ends the reading: what comes
    after it does not matter any more.
    """
    return _Reading(parameters, words, ctx).plain(interspersed=interspersed)


def shown(ctx: click.Context, name: str) -> str:
    """``-l/--listen`` for the option called ``listen``; the name itself if there is none."""
    for option in ctx.command.params:
        if option.name == name and isinstance(option, StrictOption):
            return option.shown
    return name


class _Reading:
    def __init__(
        self, parameters: Sequence[click.Parameter], words: Sequence[str], ctx: click.Context | None
    ) -> None:
        self._known = {
            name: option
            for option in parameters
            if isinstance(option, StrictOption)
            for name in option.opts
        }
        self._words = list(words)
        self._ctx = ctx
        self._seen: set[str] = set()
        self._plain: list[str] = []
        self._rest: list[str] = []

    def plain(self, *, interspersed: bool) -> list[str]:
        while self._words:
            word = self._words.pop(0)
            if word == "--":
                self._rest += self._words
                break
            if word in HELP_NAMES:
                return ["--help"]
            if word.startswith("--"):
                name, equals, value = word.partition("=")
                self._take(name, value if equals else None)
            elif word.startswith("-") and word != "-":
                if self._bundle(word):
                    return ["--help"]
            else:
                self._rest.append(word)
                if not interspersed:
                    self._rest += self._words
                    break
        return [*self._plain, "--", *self._rest] if self._rest else self._plain

    def _bundle(self, word: str) -> bool:
        """Read ``-du``, ``-lV`` or ``-l=V``; True if help was asked for."""
        letters = word[1:]
        while letters:
            name, letters = f"-{letters[0]}", letters[1:]
            if name in HELP_NAMES:
                return True
            option = self._option(name)
            if option.is_flag:
                if letters.startswith("="):
                    raise self._wrong(f"{option.shown} takes no value")
                self._take(name, None)
            else:
                self._take(name, letters.removeprefix("=") if letters else None)
                return False
        return False

    def _take(self, name: str, value: str | None) -> None:
        option = self._option(name)
        long = option.opts[-1]
        if long in self._seen and not option.multiple:
            raise self._wrong(f"{option.shown} is given more than once")
        self._seen.add(long)
        if option.is_flag:
            if value is not None:
                raise self._wrong(f"{option.shown} takes no value")
            self._plain.append(long)
            return
        if value is None and self._words and not _looks_like_option(self._words[0]):
            value = self._words.pop(0)
        if value is None and option.bare is not None:
            value = option.bare
        if not value:
            raise self._wrong(f"{option.shown} needs a value{self._refused()}")
        self._plain.append(f"{long}={value}")

    def _refused(self) -> str:
        if self._words and _looks_like_option(self._words[0]):
            return f", and '{self._words[0]}' can't be one: a value may not begin with '-'"
        return ""

    def _option(self, name: str) -> StrictOption:
        option = self._known.get(name)
        if option is None:
            hint = nearest(name, tuple(self._known)) if name.startswith("--") else ""
            raise self._wrong(f"no such option: {name}{hint}")
        return option

    def _wrong(self, message: str) -> click.UsageError:
        return click.UsageError(message, ctx=self._ctx)


def _looks_like_option(word: str) -> bool:
    return word.startswith("-") and word != "-"
