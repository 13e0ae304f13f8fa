"""The options of ``relay``: their names, their kinds of value, and what the help says of them.

The first part is realm's command line with realm's meanings, the second part is ours. Values are
checked here as far as the option alone allows; what an address means is for the configuration to
judge. Knows click only, so that help and completion cost nothing.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import click

from qanat.cli.strict import StrictOption

__all__ = [
    "OVERRIDES",
    "REFUSED",
    "WITHOUT_EFFECT",
    "WITH_FILE_IGNORED",
    "Seconds",
    "ServerList",
    "Text",
    "Whole",
    "relay_options",
]

if TYPE_CHECKING:
    _TextType = click.ParamType[str]
    _WholeType = click.ParamType[int]
    _SecondsType = click.ParamType[float]
    _ListType = click.ParamType[tuple[str, ...]]
else:
    # click below 8.5 has no generic type of parameters.
    _TextType = _WholeType = _SecondsType = _ListType = click.ParamType

_U32 = 2**32 - 1
_U64 = 2**64 - 1

_LEVELS = ("off", "error", "warn", "info", "debug", "trace")
_DNS_MODES = ("ipv4_only", "ipv6_only", "ipv4_and_ipv6", "ipv4_then_ipv6", "ipv6_then_ipv4")
_DNS_PROTOCOLS = ("tcp", "udp", "tcp_and_udp")

OVERRIDES = (
    "use_udp",
    "no_tcp",
    "ipv6_only",
    "pipe_page",
    "log_level",
    "log_output",
    "log_format",
    "dns_mode",
    "dns_min_ttl",
    "dns_max_ttl",
    "dns_cache_size",
    "dns_protocol",
    "dns_servers",
    "send_proxy_version",
    "accept_proxy_timeout",
    "tcp_timeout",
    "udp_timeout",
    "tcp_keepalive",
    "tcp_keepalive_probe",
    "workers",
    "drain",
    "metrics",
    "handshake_timeout",
    "idle_timeout",
    "linger",
    "max_connections",
    "max_connection_rate",
    "max_connections_per_client",
    "max_associations",
)
"""Options that stand above the value of the same name in every file and endpoint."""

WITH_FILE_IGNORED = (
    "listen",
    "remote",
    "through",
    "interface",
    "listen_interface",
    "listen_transport",
    "remote_transport",
)
"""Options that describe one endpoint: a file describes its own."""

WITHOUT_EFFECT = ("tfo", "splice")
"""Accepted for the sake of old start lines."""

REFUSED = {
    "pre_conn_hook": "a library with realm's binary hook can't be loaded: write the decision as a "
    'Python function and name it in the file, as hook = "module:function" of an endpoint',
}
"""Options of realm that have no meaning here, and what to do instead."""


class Whole(_WholeType):
    """A whole number within bounds, written in plain digits."""

    name = "number"

    def __init__(self, least: int = 0, most: int = _U64) -> None:
        self.least = least
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        number = int(text) if re.fullmatch(r"\+?[0-9]{1,20}", text, re.ASCII) else -1
        if not self.least <= number <= self.most:
            bounds = f"from {self.least}"
            bounds += f" to {self.most}" if self.most < _U32 else " up"
            self.fail(f"'{text}' is not a whole number {bounds}", param, ctx)
        return number


class Seconds(_SecondsType):
    """A time in seconds; fractions are welcome."""

    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value)
        number = float(text) if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text, re.ASCII) else math.inf
        if not number <= _U32:
            self.fail(f"'{text}' is not a number of seconds", param, ctx)
        return number


class Text(_TextType):
    """Characters; an argument of the system may hold other bytes as well."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"{text!r} is not text", param, ctx)
        return text


class ServerList(_ListType):
    """Addresses between commas; blanks around them are not part of them."""

    name = "list"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        value = Text().convert(value, param, ctx)
        servers = tuple(part.strip() for part in value.split(","))
        if not all(servers):
            self.fail(f"'{value}' has an empty entry", param, ctx)
        return servers


_TEXT = Text()


def relay_options() -> list[click.Parameter]:
    """Fresh parameters for a command that relays, in the order of the help."""
    return [
        *_flags(),
        *_endpoint(),
        *_process(),
        *_limits(),
        *_log(),
        *_dns(),
        *_proxy(),
        *_times(),
    ]


def _flags() -> list[click.Parameter]:
    def flag(*names: str, text: str) -> StrictOption:
        return StrictOption(names, section="Flags", is_flag=True, help=text)

    return [
        flag("-d", "--daemon", text="Detach once everything is bound."),
        flag("-u", "--udp", "use_udp", text="Relay UDP too, at every endpoint."),
        flag("-m", "--mtcp", text="Use MPTCP on both sides of every endpoint."),
        flag("-t", "--ntcp", "no_tcp", text="Relay no TCP."),
        flag("-6", "--ipv6", "ipv6_only", text="Take IPv6 only on IPv6 listeners."),
        flag("-f", "--tfo", text="No effect any more."),
        flag("-z", "--splice", text="No effect any more: always on."),
        flag("--watch", text="Reload when the configuration changes."),
        flag("--quick-start", text="Relay 127.0.0.1:8000 to our own status page."),
    ]


def _endpoint() -> list[click.Parameter]:
    def option(
        *names: str, metavar: str, text: str, type: click.ParamType[Any] = _TEXT, **more: Any
    ) -> StrictOption:
        return StrictOption(names, section="Options", metavar=metavar, help=text, type=type, **more)

    return [
        option(
            "-c",
            "--config",
            metavar="PATH",
            type=click.Path(),
            text="Read a configuration file, or a folder.",
        ),
        option(
            "-l",
            "--listen",
            metavar="ADDRESS",
            multiple=True,
            text="Listen here: HOST:PORT or HOST:PORT-PORT. May be repeated, each with its -r.",
        ),
        option(
            "-r",
            "--remote",
            metavar="ADDRESS",
            multiple=True,
            text="Relay to this target: HOST:PORT.",
        ),
        option("-x", "--through", metavar="IP", text="Connect from this address or interface."),
        option("-i", "--interface", metavar="DEVICE", text="Connect out of this interface."),
        option("-e", "--listen-interface", metavar="DEVICE", text="Listen on this interface only."),
        option(
            "-a",
            "--listen-transport",
            metavar="OPTIONS",
            text="Clients come by ws, tls or both: 'ws;host=H;path=P;tls;servername=N'.",
        ),
        option(
            "-b",
            "--remote-transport",
            metavar="OPTIONS",
            text="Targets are reached by them: 'ws;host=H;path=P;tls;sni=N'.",
        ),
    ]


def _process() -> list[click.Parameter]:
    def option(*names: str, metavar: str, text: str, type: click.ParamType[Any]) -> StrictOption:
        return StrictOption(names, section="System options", metavar=metavar, help=text, type=type)

    return [
        option(
            "-n",
            "--nofile",
            metavar="N",
            type=Whole(),
            text="Open files allowed (default: all the system lets us have).",
        ),
        option(
            "-p",
            "--pipe-page",
            metavar="N",
            type=Whole(most=524_288),
            text="Size of splice pipes in pages of 4 KiB (default 0: adaptive).",
        ),
        option(
            "-j",
            "--pre-conn-hook",
            metavar="PATH",
            type=click.Path(),
            text="Refused: hooks are Python functions here, named in a file.",
        ),
        option(
            "--workers",
            metavar="N",
            type=Whole(most=1024),
            text="Threads of the engine (default 0: one for each core).",
        ),
        option(
            "--drain",
            metavar="SECONDS",
            type=Seconds(),
            text="How long flows may go on when the relay is stopped (default 10).",
        ),
        option(
            "--pid-file",
            metavar="PATH",
            type=click.Path(dir_okay=False),
            text="Write the process id here.",
        ),
        option(
            "--control",
            metavar="PATH|off",
            type=click.Path(),
            text="Control socket, for 'qanat flows' (default: in the runtime directory).",
        ),
        option(
            "--metrics",
            metavar="ADDRESS",
            type=Text(),
            text="Serve Prometheus metrics here.",
        ),
    ]


def _limits() -> list[click.Parameter]:
    def limit(name: str, text: str) -> StrictOption:
        return StrictOption(
            [name],
            section="Limits for each endpoint (default 0: none)",
            metavar="N",
            type=Whole(most=_U32),
            help=text,
        )

    return [
        limit("--max-connections", "TCP connections at once."),
        limit("--max-connection-rate", "New TCP connections a second."),
        limit("--max-connections-per-client", "TCP connections at once from one address."),
        limit("--max-associations", "UDP clients at once (default 4096)."),
    ]


def _log() -> list[click.Parameter]:
    return [
        StrictOption(
            ["--log-level"],
            section="Log options",
            metavar="LEVEL",
            type=click.Choice(_LEVELS, case_sensitive=False),
            help=f"{_words(_LEVELS)} (default warn).",
        ),
        StrictOption(
            ["--log-output"],
            section="Log options",
            metavar="PATH",
            type=click.Path(),
            help="stdout, stderr or the path of a file.",
        ),
        StrictOption(
            ["--log-format"],
            section="Log options",
            metavar="FORMAT",
            type=click.Choice(("text", "json"), case_sensitive=False),
            help="text or json (default text).",
        ),
    ]


def _dns() -> list[click.Parameter]:
    def option(name: str, metavar: str, type: click.ParamType[Any], text: str) -> StrictOption:
        return StrictOption([name], section="DNS options", metavar=metavar, type=type, help=text)

    return [
        option(
            "--dns-mode",
            "MODE",
            click.Choice(_DNS_MODES, case_sensitive=False),
            f"{_words(_DNS_MODES)} (default ipv4_and_ipv6).",
        ),
        option(
            "--dns-min-ttl",
            "SECONDS",
            Whole(most=_U32),
            "Keep answers at least so long (default 0).",
        ),
        option(
            "--dns-max-ttl", "SECONDS", Whole(most=_U32), "... at most so long (default 86400)."
        ),
        option("--dns-cache-size", "N", Whole(), "Names to keep (default 8192)."),
        option(
            "--dns-protocol",
            "PROTOCOL",
            click.Choice(_DNS_PROTOCOLS, case_sensitive=False),
            f"{_words(_DNS_PROTOCOLS)} (default the last).",
        ),
        option(
            "--dns-servers",
            "LIST",
            ServerList(),
            "Name servers, HOST[:PORT],... (default: the system's).",
        ),
    ]


def _proxy() -> list[click.Parameter]:
    def option(
        name: str, metavar: str, type: click.ParamType[Any], text: str, bare: str | None = None
    ) -> StrictOption:
        return StrictOption(
            [name],
            section="PROXY protocol options",
            metavar=metavar,
            type=type,
            help=text,
            bare=bare,
        )

    truth = click.Choice(("true", "false"))
    some = click.Choice(("true", "false", "optional"))
    return [
        option("--send-proxy", "[true|false]", truth, "Tell targets who the client is.", "true"),
        option("--send-proxy-version", "N", Whole(1, 2), "1 or 2 (default 2)."),
        option(
            "--accept-proxy",
            "[true|false|optional]",
            some,
            "Be told by clients who they are.",
            "true",
        ),
        option(
            "--accept-proxy-timeout", "SECONDS", Whole(), "Wait so long for the header (default 5)."
        ),
    ]


def _times() -> list[click.Parameter]:
    def option(name: str, metavar: str, type: click.ParamType[Any], text: str) -> StrictOption:
        return StrictOption(
            [name], section="Timeout options", metavar=metavar, type=type, help=text
        )

    return [
        option(
            "--tcp-timeout",
            "SECONDS",
            Whole(),
            "To connect, names included; 0 is none (default 5).",
        ),
        option(
            "--udp-timeout", "SECONDS", Whole(), "Of a silent UDP client; 0 is none (default 30)."
        ),
        option(
            "--tcp-keepalive",
            "SECONDS",
            Whole(most=32_767),
            "Between keepalive probes; 0 is off (default 15).",
        ),
        option(
            "--tcp-keepalive-probe",
            "N",
            Whole(1, 127),
            "Lost probes before a peer counts as gone (default 3).",
        ),
        option(
            "--idle-timeout",
            "SECONDS",
            Seconds(),
            "End TCP flows idle for so long (default 0: never).",
        ),
        option(
            "--handshake-timeout",
            "SECONDS",
            Seconds(),
            "Of TLS and WebSocket, on either side (default 10).",
        ),
        option(
            "--linger", "SECONDS", Seconds(), "End half-closed flows without progress (default 30)."
        ),
    ]


def _words(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
