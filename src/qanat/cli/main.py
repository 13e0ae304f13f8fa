"""Where the program starts: finds the command, runs it, and turns every end into an exit code.

0 is success, 1 a failure or a configuration that can't be used, 2 a wrong use of the command line,
130 an interruption. This module imports click and nothing else that costs time; a person's mistake
never shows a traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import click

from qanat.cli.commands import CommandGroup
from qanat.cli.output import complain, report_problems
from qanat.errors import ConfigError, QanatError

__all__ = ["cli", "main"]

_REALM_NAMES = frozenset({"realm", "realm.exe"})
_INTERRUPTED = 130


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from qanat.cli.version import package_version

    click.echo(f"qanat {package_version()}")
    ctx.exit(0)


@click.group(
    cls=CommandGroup,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    options_metavar="",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Carries network flows: a relay for TCP and UDP, with a native engine.

    \b
    qanat relay -l 0.0.0.0:5000 -r example.com:80   relay one address
    qanat relay -c relay.toml                       relay what a file says
    qanat COMMAND --help                            more about a command
    """,
)
@click.option(
    "-v",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and end.",
)
@click.pass_context
def cli(ctx: click.Context) -> int:
    if ctx.invoked_subcommand is not None:
        return 0
    click.echo(ctx.get_help(), err=True)
    return 2


def main(argv: Sequence[str] | None = None, *, program: str | None = None) -> int:
    """Run one command line (``argv`` without the program's name) and return its exit code.

    ``program`` is the name that was called; as ``realm`` the whole line goes to ``relay``.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    called = os.path.basename(sys.argv[0] if program is None else program)
    if called.lower() in _REALM_NAMES:
        program, command = "realm", _realm()
    else:
        program, command = "qanat", cli
    try:
        code = _run(command, program, words)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has seen enough (`qanat schema | head`): no failure of ours.
        _abandon_stdout()
        return 0
    except click.UsageError as error:
        context = error.ctx
        complain(_sentence(error.format_message()), program=program)
        if context is not None:
            complain(f"try '{context.command_path} --help'", program=program)
        return 2
    except click.ClickException as error:
        complain(_sentence(error.format_message()), program=program)
        return 1
    except ConfigError as error:
        report_problems(error.problems, program=program)
        return 1
    except QanatError as error:
        complain(str(error), program=program)
        return 1
    except ImportError as error:
        if "_engine" not in str(error):
            raise
        from qanat.cli.version import ENGINE_MISSING

        complain(ENGINE_MISSING, program=program)
        return 1
    except OSError as error:
        complain(_failure(error), program=program)
        if error.errno == errno.ENOSPC:
            _abandon_stdout()
        return 1
    except (KeyboardInterrupt, click.Abort):
        return _INTERRUPTED
    return code


def _run(command: click.Command, program: str, words: list[str]) -> int:
    variable = f"_{program.upper()}_COMPLETE"
    instruction = os.environ.get(variable)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(command, {}, program, variable, instruction)
    try:
        with command.make_context(program, words) as context:
            result = command.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return result if isinstance(result, int) else 0


def _realm() -> click.Command:
    from qanat.cli.relay import realm

    return realm


def _sentence(message: str) -> str:
    """click's messages are sentences; after our name they go on in lower case and end bare."""
    message = message.removesuffix(".")
    return message[:1].lower() + message[1:] if not message[1:2].isupper() else message


def _failure(error: OSError) -> str:
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{error.filename}: {reason}"


def _abandon_stdout() -> None:
    """Let the interpreter's own last flush go nowhere instead of failing once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
