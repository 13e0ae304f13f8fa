"""``qanat proxy``: SOCKS and HTTP proxies, and ``qanat proxy passwd``, which keeps their users.

Turns one command line into a configuration and a way to read it again, and hands both to the
running program.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from qanat.cli.commands import nearest
from qanat.cli.options import Seconds, Whole
from qanat.cli.output import emit, notice
from qanat.cli.strict import HELP_NAMES, StrictCommand, StrictOption, plain_form
from qanat.errors import ConfigError, QanatError

__all__ = ["command"]

_RULES: Final = "qanat.cli.proxy.rules"
_LEVELS: Final = ("off", "error", "warn", "info", "debug", "trace")
_LOG: Final = {"log_level": "level", "log_output": "output", "log_format": "format"}
_LIMITS: Final = (
    "max_connections",
    "max_connections_per_client",
    "max_connections_per_user",
    "rate_up",
    "rate_down",
    "max_associations",
)


class ProxyCommand(StrictCommand):
    """Without a word of what to do it shows its help, which is then no success. The rules keep the
    order in which they are given, be they ``--allow`` or ``--deny``."""

    allow_extra_args = True
    allow_interspersed_args = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        if not ctx.resilient_parsing:
            ctx.meta[_RULES] = _rules(plain_form(self.params, args, ctx=ctx, interspersed=False))
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[OPTIONS]")
        formatter.write_usage(ctx.command_path, "passwd [--delete] FILE NAME", prefix="       ")


def _rules(plain: Sequence[str]) -> list[str]:
    found = []
    for word in plain:
        if word == "--":
            break
        option, _, rule = word.partition("=")
        if option in ("--allow", "--deny"):
            found.append(f"{option[2:]} {rule}")
    return found


def _options() -> list[click.Parameter]:
    def option(names: str, section: str, **more: Any) -> StrictOption:
        return StrictOption(names.split(), section=section, **more)

    listen, who, way, limits, program = (
        "Listen",
        "Who may go where",
        "The way",
        "Limits",
        "The program",
    )
    return [
        option(
            "--socks5", listen, metavar="ADDR", multiple=True, help="SOCKS5 (and 4, 4a): :1080."
        ),
        option("--http", listen, metavar="ADDR", multiple=True, help="HTTP: CONNECT and requests."),
        option("--mixed", listen, metavar="ADDR", multiple=True, help="Both on one port."),
        option("--tls", listen, metavar="CERT,KEY", help="Clients speak TLS to the proxy itself."),
        option(
            "--app",
            listen,
            metavar="MODULE:NAME",
            help="Run a stack of your own on the --listen addresses.",
        ),
        option("--listen", listen, metavar="ADDR", multiple=True, help="Addresses for --app."),
        option("--auth", who, metavar="FILE", help="Users and their hashed passwords."),
        option("--guest", who, is_flag=True, help="Serve clients without a name, too."),
        option(
            "--allow",
            who,
            metavar="RULE",
            multiple=True,
            help="As 'user=alice to=*.example.com port=443'. The first rule that fits decides.",
        ),
        option("--deny", who, metavar="RULE", multiple=True, help="As 'to=10.0.0.0/8', or 'all'."),
        option("--private", who, is_flag=True, help="Let clients reach private networks."),
        option(
            "--via",
            way,
            metavar="URL",
            multiple=True,
            help="Go through a proxy, as socks5h://user:secret@host:1080; the nearest first.",
        ),
        option("--no-udp", way, is_flag=True, help="No UDP ASSOCIATE."),
        option(
            "--connect-timeout", way, metavar="S", type=Seconds(), help="To reach a target (10)."
        ),
        option(
            "--handshake-timeout",
            way,
            metavar="S",
            type=Seconds(),
            help="For a client's wish (10).",
        ),
        option(
            "--idle-timeout",
            way,
            metavar="S",
            type=Seconds(),
            help="Without a byte (600); 0 never.",
        ),
        option(
            "--max-connections",
            limits,
            metavar="N",
            type=Whole(),
            help="At once (10000); 0: no limit.",
        ),
        option(
            "--max-connections-per-client",
            limits,
            metavar="N",
            type=Whole(),
            help="Of one address.",
        ),
        option(
            "--max-connections-per-user", limits, metavar="N", type=Whole(), help="Of one user."
        ),
        option(
            "--max-associations", limits, metavar="N", type=Whole(), help="UDP, at once (1024)."
        ),
        option("--rate-up", limits, metavar="RATE", help="From one user, as 10MB/s."),
        option("--rate-down", limits, metavar="RATE", help="To one user."),
        option("-c --config", program, metavar="FILE", help="The same words in a file."),
        option("--drain", program, metavar="S", type=Seconds(), help="For flows at the end (10)."),
        option("--metrics", program, metavar="ADDR", help="Serve metrics to Prometheus."),
        option("--control", program, metavar="PATH", help="The control socket, or off."),
        option(
            "--log-level",
            program,
            metavar="LEVEL",
            type=click.Choice(_LEVELS),
            help="How much (warn); info tells each connection.",
        ),
        option("--log-output", program, metavar="PATH", help="Where to: stdout, stderr or a file."),
        option(
            "--log-format",
            program,
            metavar="FORMAT",
            type=click.Choice(("text", "json")),
            help="text or json.",
        ),
        option(
            "--describe", program, is_flag=True, help="Check everything, print the stacks and end."
        ),
    ]


def _proxy(ctx: click.Context, /, **given: Any) -> int:
    if ctx.args:
        name, *words = ctx.args
        if name == "passwd":
            with _passwd.make_context("passwd", words, parent=ctx) as inner:
                result = _passwd.invoke(inner)
            return result if isinstance(result, int) else 0
        raise click.UsageError(f"unexpected word: {name}{nearest(name, ('passwd',))}", ctx=ctx)
    if bool(given["app"]) != bool(given["listen"]):
        raise click.UsageError("--app and --listen need each other", ctx=ctx)
    values = _values(ctx, given)
    path = None if given["config"] is None else Path(given["config"])

    from qanat.config.proxy_file import LoadedProxy, load_proxy

    def read() -> LoadedProxy:
        return load_proxy(path, values, app=given["app"] is not None)

    try:
        loaded = read()
    except ConfigError as error:
        if path is None:
            named = [_option_of(problem.key) or problem.key for problem in error.problems]
            lines = [
                str(problem).replace(str(problem.key), str(name), 1)
                for problem, name in zip(error.problems, named, strict=True)
            ]
            raise click.UsageError("; ".join(lines), ctx=ctx) from error
        raise

    from qanat.proxy.program import run

    return run(
        loaded,
        read,
        app=given["app"],
        app_listen=given["listen"],
        describe_only=given["describe"],
    )


def _values(ctx: click.Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the line says, by the keys of the configuration."""
    values: dict[str, Any] = {}
    for key in ("socks5", "http", "mixed", "via"):
        if given[key]:
            values[key] = list(given[key])
    for key in (
        "auth",
        "drain",
        "metrics",
        "connect_timeout",
        "handshake_timeout",
        "idle_timeout",
    ):
        if given[key] is not None:
            values[key] = given[key]
    for key in ("guest", "private"):
        if given[key]:
            values[key] = True
    if given["no_udp"]:
        values["udp"] = False
    if given["tls"] is not None:
        values["tls"] = given["tls"].split(",")
    if given["control"] is not None:
        values["control"] = False if given["control"] == "off" else given["control"]
    rules = ctx.meta.get(_RULES)
    if rules:
        values["rules"] = rules
    for table, names in (("limits", {name: name for name in _LIMITS}), ("log", _LOG)):
        inner = {key: given[name] for name, key in names.items() if given[name] is not None}
        if inner:
            values[table] = inner
    return values


def _option_of(key: str | None) -> str | None:
    if key is None:
        return None
    first = key.partition("[")[0]
    for name, inner in _LOG.items():
        if first == f"log.{inner}":
            return f"--{name.replace('_', '-')}"
    if first == "rules":
        return "--allow/--deny"
    return f"--{first.rpartition('.')[2].replace('_', '-')}"


@click.command("passwd", context_settings={"help_option_names": list(HELP_NAMES)})
@click.option("--delete", is_flag=True, help="Take the user out.")
@click.argument("file", metavar="FILE")
@click.argument("name", metavar="NAME")
def _passwd(delete: bool, file: str, name: str) -> int:
    """Set the password of a user, who is added when new.

    The password is asked for on a terminal, and read from the first line of standard input
    otherwise. FILE holds hashes only; a running proxy reads it again with `qanat reload`.
    """
    from qanat.proxy.users import remove_user, store_user

    path = Path(file)
    if delete:
        if not remove_user(path, name):
            raise QanatError(f"{path}: there is no user {name}", code="user")
        emit(f"{name} is taken out of {path}")
        return 0
    password = _password(name)
    if not password:
        raise QanatError("the password is empty", code="user")
    if len(password.encode()) > 255:
        raise QanatError("a password has at most 255 bytes", code="user")
    new = store_user(path, name, password)
    emit(f"{name} is {'new in' if new else 'changed in'} {path}")
    if path.stat().st_mode & 0o004:
        notice(f"{path} can be read by everybody")
    return 0


def _password(name: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(f"password of {name}", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")


command = ProxyCommand(
    "proxy",
    params=_options(),
    callback=click.pass_context(_proxy),
    context_settings={
        "help_option_names": list(HELP_NAMES),
        "max_content_width": 80,
        "allow_extra_args": True,
    },
    help="""Serve SOCKS5 and HTTP clients as their proxy.

    \b
    qanat proxy --mixed :3128
    qanat proxy --socks5 :1080 --auth users --deny 'port=25'
    qanat proxy --http 127.0.0.1:8080 --via socks5h://192.0.2.1:1080
    qanat proxy passwd users alice
    qanat proxy -c proxy.toml

    Clients on loopback may go anywhere. Others can't reach loopback, link-local and
    metadata addresses or the proxy itself, and private networks only with --private.
    SIGHUP or `qanat reload` reads users, rules and certificates again.
    """,
)
