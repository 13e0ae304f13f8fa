"""Fuzzing everything that reads a configuration: whatever the bytes, an answer or its error.

``python -m tests.fuzz.config [SECONDS]`` changes and crosses the texts of a corpus at random for so
long, prints the seed first and the input last when something else than the documented error comes
out, and ends with 1. ``tests/config/test_fuzz.py`` runs the same targets shortly.
"""

import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from qanat.config.address import (
    AddressError,
    parse_listen,
    parse_remote,
    parse_through,
)
from qanat.config.balancing import BalanceError, parse_balance
from qanat.config.dns_servers import parse_server
from qanat.config.document import decode, read
from qanat.config.hook_name import HookNameError, parse_hook
from qanat.config.load import load
from qanat.config.merge import effective
from qanat.config.networks import parse_network
from qanat.config.octets import OctetsError, parse_octets
from qanat.config.quantities import QuantityError, parse_rate, parse_size
from qanat.config.routes import parse_name_pattern
from qanat.config.tidy import tidy
from qanat.config.transport_options import LISTEN, REMOTE, OptionError, Side, parse_options
from qanat.errors import ConfigError, Problem

__all__ = ["TARGETS", "Failure", "corpus", "main", "mutate", "seeds"]

FILES: Final = Path(__file__).parents[1] / "config" / "files"
LONGEST: Final = 20_000
SLOWEST: Final = 5.0
"""Seconds that one input may take. Nothing here should ever need a tenth of it."""

_WORDS: Final = [
    word.encode()
    for word in (
        *("[[endpoints]]", "[network]", "[", "]", "{", "}", "[[", "]]", "=", ":", ",", "\n", "- "),
        *('"', "'", '"""', "'''", "\\", "#", "<<", "&a", "*a", "!!int", "%", "\t", "\r\n", "---"),
        *("endpoints", "listen", "remote", "local", "network", "log", "level", "dns", "min_ttl"),
        *("listening_ports", "listening_addresses", "remote_addresses", "remote_ports", "1-65535"),
        *("true", "false", "null", "~", "off", "NaN", "Infinity", ".inf", "1e999", "-1", "0x1F"),
        *("9" * 5000, "[" * 200, "{" * 200, "[::1]:80", ":::1", "0-65535", "a:1-2", "http://"),
        *("ws", "tls", "host=", "path=", "sni=", "alpn=", "cert=", ";", "\\;", "0x", "*.", "/8"),
        *("GiB", "Mbit/s", "iphash:", "tls://", "https://", "route", "check", "allow", "quota"),
        *("1979-05-27 07:32:00", "\ufeff", "\u2028", "é", "\\ud800", "\0", "\x1b[31m"),
    )
] + [b"\xff", b"\xed\xa0\x80", b"\xc3"]


class Failure(Exception):
    """A target did something that it does not promise."""


def _document(file: str | None) -> Callable[[bytes], None]:
    def target(raw: bytes) -> None:
        try:
            source = tidy(read(decode(raw, file), file))
            for problem in source.problems:
                _shown(problem)
        except ConfigError as error:
            _all_shown(error)

    return target


def _text(raw: bytes) -> None:
    text = raw.decode("utf-8", "surrogateescape")
    try:
        loaded = load(text=text)
        effective(loaded.config)
        for warning in loaded.warnings:
            _shown(warning)
    except ConfigError as error:
        _all_shown(error)


def _value(
    parse: Callable[[str], object], refusal: type[Exception] = AddressError, *, again: bool = True
) -> Callable[[bytes], None]:
    """``again``: what was read is written as text and read once more."""

    def target(raw: bytes) -> None:
        text = raw.decode("utf-8", "surrogateescape")
        try:
            parsed = parse(text)
        except refusal as error:
            if not str(error):
                raise Failure("an error without words") from error
            return
        if again and str(parse(str(parsed))) != str(parsed):
            raise Failure(f"{parsed} reads as something else")

    return target


def _options(side: Side) -> Callable[[bytes], None]:
    def target(raw: bytes) -> None:
        text = raw.decode("utf-8", "surrogateescape")
        try:
            options = parse_options(text, side)
        except OptionError as error:
            if not str(error).isprintable() or not (error.hint or "-").isprintable():
                raise Failure(f"words that can't be shown: {error!r}") from error
            return
        if options.table and not options.table.keys() <= {"ws", "tls", "uot"}:
            raise Failure(f"no transport: {options.table}")

    return target


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "load": _text,
    "toml": _document("x.toml"),
    "json": _document("x.json"),
    "yaml": _document("x.yaml"),
    "guess": _document(None),
    "listen": _value(parse_listen),
    "remote": _value(parse_remote),
    "through": _value(parse_through),
    "name_server": _value(parse_server),
    "network": _value(parse_network),
    "balance": _value(parse_balance, BalanceError),
    "hook": _value(parse_hook, HookNameError),
    "size": _value(parse_size, QuantityError),
    "rate": _value(parse_rate, QuantityError),
    "octets": _value(lambda text: parse_octets(text, 100), OctetsError, again=False),
    "pattern": _value(lambda text: parse_name_pattern(text, addresses=True)),
    "listen_transport": _options(LISTEN),
    "remote_transport": _options(REMOTE),
}
"""Each takes any bytes and raises nothing, or tells what is wrong with qanat."""


def seeds() -> list[bytes]:
    """Texts from which the random ones are made."""
    files = [path.read_bytes() for path in sorted(FILES.rglob("*")) if path.is_file()]
    addresses = [b"0.0.0.0:1-2", b"[fe80::1%eth0]:80", b":::52225", b"host.example:80", b"eth0"]
    values = [
        *(b"10.0.0.0/8", b"::ffff:192.0.2.0/120", b"tls://192.0.2.53:853#a", b"https://a/q#b"),
        *(b"roundrobin: 4, 2, 1", b"10MiB/s", b"1.5 GB", b"0x1603", b"*.a.example", b"a.b:c"),
        *(b"ws;host=a;path=/b;tls;sni=c;alpn=h2,http/1.1;insecure;0rtt", b"/x.py:f"),
        *(rb"tls;cert=a\;b;key=c\\d;ws;host=a\=b;path=/\,;client_ca=e", b"uot;key_log"),
    ]
    return [*files, *addresses, *values]


def mutate(raw: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """One to six small changes."""
    for _ in range(chance.randint(1, 6)):
        start = chance.randint(0, len(raw))
        end = min(len(raw), start + int(chance.expovariate(0.1)))
        match chance.randrange(7):
            case 0:
                raw = raw[:start] + raw[end:]
            case 1:
                raw = raw[:start] + chance.choice(_WORDS) + raw[start:]
            case 2:
                raw = raw[:start] + chance.choice(_WORDS) + raw[end:]
            case 3:
                raw = raw[:start] + bytes([chance.randrange(256)]) + raw[start + 1 :]
            case 4:
                raw = raw[:end] + raw[start:end] * chance.randint(1, 50) + raw[end:]
            case 5:
                other = chance.choice(others)
                cut = chance.randint(0, len(other))
                raw = raw[:start] + other[cut : cut + end - start + 40] + raw[end:]
            case _:
                raw = raw[:start] if chance.random() < 0.3 else raw
    return raw[:LONGEST]


def corpus(chance: random.Random) -> Iterator[bytes]:
    """Random inputs without end. What was made before is sometimes changed further."""
    pool = seeds()
    while True:
        made = mutate(chance.choice(pool), chance, pool)
        yield made
        if chance.random() < 0.02:
            pool.append(made)
            del pool[300:]


def main(arguments: list[str]) -> int:
    seconds = float(arguments[0]) if arguments else 60.0
    seed = int(arguments[1]) if len(arguments) > 1 else random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"config: {seconds:g} s, seed {seed}\n")
    until = time.monotonic() + seconds
    count = 0
    for raw in corpus(random.Random(seed)):  # repeatable, not secret
        for name, target in TARGETS.items():
            begun = time.monotonic()
            try:
                target(raw)
            except Exception as error:  # whatever it is, it is the finding
                sys.stdout.write(f"target {name}: {error!r}\ninput: {raw!r}\n")
                return 1
            if time.monotonic() - begun > SLOWEST:
                sys.stdout.write(f"target {name}: too slow\ninput: {raw!r}\n")
                return 1
        count += 1
        if time.monotonic() > until:
            break
    sys.stdout.write(f"config: {count} inputs, {len(TARGETS)} targets, nothing found\n")
    return 0


def _all_shown(error: ConfigError) -> None:
    if not any(problem.severity == "error" for problem in error.problems):
        raise Failure("refused without an error")
    for problem in error.problems:
        _shown(problem)


def _shown(problem: Problem) -> None:
    """A problem is one line that any terminal can show."""
    line = str(problem)
    line.encode("utf-8")
    if not line.isprintable() or not problem.message:
        raise Failure(f"not a line to show: {line!r}")
    if problem.line is not None and (problem.line < 1 or (problem.column or 1) < 1):
        raise Failure(f"no such place: {line!r}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
