"""``qanat relay``, and the whole of the program when it is called ``realm``.

Turns one command line into a configuration and a way to read it again, and hands both to the
running program. Configuration and program are imported once the line is known to be right.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qanat.cli.commands import load_command, nearest
from qanat.cli.options import (
    OVERRIDES,
    WITH_FILE_IGNORED,
    WITHOUT_EFFECT,
    relay_options,
)
from qanat.cli.output import notice
from qanat.cli.strict import HELP_NAMES, StrictCommand, StrictOption
from qanat.errors import ConfigError, Problem

if TYPE_CHECKING:
    from qanat.config.load import Loaded
    from qanat.config.merge import Overrides
    from qanat.config.models import Endpoint

__all__ = ["CONFIG_VARIABLE", "REALM_FEATURES", "command", "realm"]

CONFIG_VARIABLE = "REALM_CONF"

REALM_FEATURES = ("batched-udp", "multi-thread")
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
    _refuse_unsupported(ctx, given)
    for name in WITHOUT_EFFECT:
        if given[name]:
            notice(f"{_shown(ctx, name)} has no effect any more")
    read = _source(ctx, given)

    from qanat.relay import program

    if given["watch"] and not _paths(given):
        notice("--watch has nothing to watch: the configuration is not from a file")
    try:
        loaded = read()
    except ConfigError as error:
        if all(_is_of_line(problem) for problem in error.problems):
            raise click.UsageError(str(error), ctx=ctx) from error
        raise
    return program.run(
        loaded,
        program.ProgramOptions(
            reloader=read,
            watch=given["watch"],
            drain=given["drain"],
            control=False if given["control"] == "off" else given["control"],
            metrics=given["metrics"],
            daemon=given["daemon"],
            pid_file=given["pid_file"],
            nofile=given["nofile"],
            config_paths=_paths(given),
            log_format=given["log_format"],
            quickstart=given["quick_start"],
        ),
    )


def _paths(given: Given) -> list[Path]:
    """The files that the configuration is from, if it is from files."""
    if given["config"] is None or os.environ.get(CONFIG_VARIABLE):
        return []
    return [Path(given["config"])]


def _is_of_line(problem: Problem) -> bool:
    """Whether an option is wrong, and not what a file says."""
    return problem.file is None and (problem.key or "").startswith("--")


def _refuse_unsupported(ctx: click.Context, given: Given) -> None:
    wanted = ["pre_conn_hook"]
    if given["config"] is None:
        wanted += ["listen_transport", "remote_transport"]
    for name in wanted:
        if given[name] is not None:
            raise click.UsageError(f"{_shown(ctx, name)} is not yet supported", ctx=ctx)
    for name in ("send_proxy", "accept_proxy"):
        if given[name] == "true":
            raise click.UsageError(f"{_shown(ctx, name)} is not yet supported", ctx=ctx)


def _source(ctx: click.Context, given: Given) -> Callable[[], Loaded]:
    """Where the configuration comes from: the first of variable, file, addresses, quick start."""
    from qanat.config.load import load

    described = [name for name in WITH_FILE_IGNORED if given[name]]
    overrides = _overrides(given)
    text = os.environ.get(CONFIG_VARIABLE)
    if given["quick_start"]:
        for name in ("config", *described):
            if given[name]:
                raise click.UsageError(f"--quick-start excludes {_shown(ctx, name)}", ctx=ctx)
        return _constant((), overrides)
    if text:
        for name in ("config", *described):
            if given[name]:
                notice(f"{_shown(ctx, name)} is ignored: {CONFIG_VARIABLE} is set")
        return lambda: load(text=text, name=CONFIG_VARIABLE, overrides=overrides)
    if given["config"] is not None:
        for name in described:
            notice(f"{_shown(ctx, name)} is ignored: -c is given")
        path = given["config"]
        return lambda: load(path, overrides=overrides)
    _check_pairs(ctx, given)
    return _from_line(ctx, given, overrides)


def _check_pairs(ctx: click.Context, given: Given) -> None:
    listen, remote = given["listen"], given["remote"]
    for name in ("listen", "remote"):
        if not given[name]:
            raise click.UsageError(
                f"{_shown(ctx, name)} is missing: give -c, or -l with -r", ctx=ctx
            )
    if len(listen) != len(remote):
        raise click.UsageError(
            f"{len(listen)} x -l but {len(remote)} x -r: each -l needs its own -r", ctx=ctx
        )


def _overrides(given: Given) -> Overrides:
    from qanat.config.merge import Overrides

    # A flag that is not given says nothing; it does not say "no".
    said = {name: given[name] for name in OVERRIDES}
    values = {
        name: value for name, value in said.items() if value is not None and value is not False
    }
    for name in ("send_proxy", "accept_proxy"):
        if given[name] == "false":
            values[name] = False
    if given["mtcp"]:
        values["mptcp"] = True
    if values.get("pipe_page") == 0:
        del values["pipe_page"]
    if given["control"] is not None:
        values["control"] = False if given["control"] == "off" else given["control"]
    return Overrides(**values)


def _from_line(ctx: click.Context, given: Given, overrides: Overrides) -> Callable[[], Loaded]:
    from qanat.config.models import Endpoint

    endpoints = []
    wrong = []
    for listen, remote in zip(given["listen"], given["remote"], strict=True):
        try:
            endpoint = Endpoint(
                listen=listen,
                remote=remote,
                through=given["through"],
                interface=given["interface"],
                listen_interface=given["listen_interface"],
            )
        except ConfigError as error:
            wrong += [_invalid(ctx, problem) for problem in error.problems]
        else:
            endpoints.append(endpoint)
    if wrong:
        # A wrong -x is found again with each pair.
        raise click.UsageError("\n".join(dict.fromkeys(wrong)), ctx=ctx)
    return _constant(endpoints, overrides)


def _constant(endpoints: Sequence[Endpoint], overrides: Overrides) -> Callable[[], Loaded]:
    """A configuration that is the same whenever it is read."""

    def read() -> Loaded:
        from qanat.config.checks import check
        from qanat.config.load import Loaded
        from qanat.config.merge import apply_overrides, effective
        from qanat.config.models import Config
        from qanat.config.origins import Origins

        config = apply_overrides(Config(endpoints=list(endpoints)), overrides)
        found = check(effective(config), Origins())
        if any(problem.severity == "error" for problem in found):
            raise ConfigError(found)
        return Loaded(config=config, warnings=found, files=[])

    return read


def _invalid(ctx: click.Context, problem: Problem) -> str:
    hint = f" ({problem.hint})" if problem.hint else ""
    name = _shown(ctx, problem.key or "")
    return f"invalid value for {name}: '{problem.value}': {problem.message}{hint}"


def _shown(ctx: click.Context, name: str) -> str:
    for option in ctx.command.params:
        if option.name == name and isinstance(option, StrictOption):
            return option.shown
    return name


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
