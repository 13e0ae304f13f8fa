"""``qanat relay``, and the whole of the program when it is called ``realm``.

Turns one command line into a configuration and a way to read it again, and hands both to the
running program. Configuration and program are imported once the line is known to be right.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click

from qanat.cli.commands import load_command, nearest
from qanat.cli.options import REFUSED, WITHOUT_EFFECT, relay_options
from qanat.cli.output import notice
from qanat.cli.source import CONFIG_VARIABLE, choose
from qanat.cli.strict import HELP_NAMES, StrictCommand, StrictOption, shown
from qanat.errors import ConfigError

__all__ = ["REALM_FEATURES", "command", "realm"]

REALM_FEATURES = ("batched-udp", "proxy", "balance", "transport", "multi-thread")
"""What realm's version line would call the features that we have, in its order."""

_REALM_COMMANDS = {
    "convert": "Rewrite a legacy configuration.",
    "api": "Not yet supported.",
}

Given = Mapping[str, Any]


class RelayCommand(StrictCommand):
    """Relays. Without a word of what to relay it shows its help, which is then no success."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing and not os.environ.get(CONFIG_VARIABLE):
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)


class RealmCommand(RelayCommand):
    """The same line, read as realm would: two commands may stand behind the options."""

    allow_extra_args = True
    allow_interspersed_args = False

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[FLAGS] [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS]...", prefix="       ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_REALM_COMMANDS.items()))
        super().format_options(ctx, formatter)


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from qanat.cli.version import package_version

    if isinstance(ctx.command, RealmCommand):
        features = "".join(f"[{feature}]" for feature in REALM_FEATURES)
        click.echo(f"Realm {package_version()} {features}")
    else:
        click.echo(f"qanat {package_version()}")
    ctx.exit(0)


def _parameters() -> list[click.Parameter]:
    version = StrictOption(
        ["-v", "--version"],
        section="Flags",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Show the version and end.",
    )
    return [version, *relay_options()]


def _relay(ctx: click.Context, /, **given: Any) -> int:
    if ctx.args:
        hint = nearest(ctx.args[0], tuple(option.opts[-1] for option in ctx.command.params))
        raise click.UsageError(f"unexpected word: {ctx.args[0]}{hint}", ctx=ctx)
    return _run(ctx, given)


def _realm(ctx: click.Context, /, **given: Any) -> int:
    if not ctx.args:
        return _run(ctx, given)
    name, *words = ctx.args
    if name == "convert":
        convert = load_command(name)
        with convert.make_context(name, words, parent=ctx) as inner:
            result = convert.invoke(inner)
        return result if isinstance(result, int) else 0
    if name in _REALM_COMMANDS:
        raise click.UsageError(f"'{name}' is not yet supported", ctx=ctx)
    hint = nearest(name, tuple(_REALM_COMMANDS))
    raise click.UsageError(f"no such command: {name}{hint}", ctx=ctx)


def _run(ctx: click.Context, given: Given) -> int:
    _refuse(ctx, given)
    for name in WITHOUT_EFFECT:
        if given[name]:
            notice(f"{shown(ctx, name)} has no effect any more")
    source = choose(ctx, given)
    if given["watch"] and not source.paths:
        notice("--watch has nothing to watch: the configuration is not from a file")
    try:
        loaded = source.read()
    except ConfigError as error:
        if source.is_line(error.problems):
            raise click.UsageError(str(error), ctx=ctx) from error
        raise

    from qanat.relay import program

    options = program.ProgramOptions(
        reloader=source.read,
        watch=given["watch"],
        drain=given["drain"],
        control=False if given["control"] == "off" else given["control"],
        metrics=given["metrics"],
        daemon=given["daemon"],
        pid_file=given["pid_file"],
        nofile=given["nofile"],
        config_paths=source.paths,
        log_format=given["log_format"],
        quickstart=given["quick_start"],
    )
    try:
        return program.run(loaded, options)
    except ConfigError as error:
        # Names to listen on and files to log to are tried only now.
        raise ConfigError(source.named(error.problems, loaded)) from error


def _refuse(ctx: click.Context, given: Given) -> None:
    for name, why in REFUSED.items():
        if given[name] is not None:
            raise click.UsageError(f"{shown(ctx, name)}: {why}", ctx=ctx)


_SETTINGS = {"help_option_names": list(HELP_NAMES), "max_content_width": 80}

command = RelayCommand(
    "relay",
    params=_parameters(),
    callback=click.pass_context(_relay),
    context_settings={**_SETTINGS, "allow_extra_args": True},
    help="""Carry TCP and UDP flows from listening addresses to targets.

    \b
    qanat relay -l 0.0.0.0:5000 -r example.com:80
    qanat relay -u -l [::]:53 -r 192.0.2.53:53 -l :::8080 -r backend:80
    qanat relay -c /etc/qanat/relay.toml --watch

    Options stand above what a file says, for every endpoint of it. REALM_CONF
    in the environment is read as a configuration and used before -c, -l and -r.
    """,
)

realm = RealmCommand(
    "realm",
    params=_parameters(),
    callback=click.pass_context(_realm),
    context_settings=_SETTINGS,
    help="A high efficiency relay for TCP and UDP. This is qanat, called realm.",
)
