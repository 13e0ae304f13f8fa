r"""realm's option strings: ``ws;host=a.example;path=/chat;tls;sni=a.example``, read strictly. Pure.

Words stand between semicolons, blanks around them don't count. Names are matched exactly. In a
value ``\;``, ``\=``, ``\,`` and ``\\`` stand for the character alone. What comes out is what the
same transport is as a table, so that both forms have one meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from qanat.config.places import printable
from qanat.config.words import nearest, words

__all__ = ["LISTEN", "REMOTE", "OptionError", "Options", "Side", "escaped", "parse_options"]

_SEMICOLON: Final = re.compile(r"((?:[^\\;]|\\.)*)(?:;|\Z)|\\\Z", re.DOTALL)
_COMMA: Final = re.compile(r"(?:[^\\,]|\\.)+", re.DOTALL)
_EQUALS: Final = re.compile(r"((?:[^\\=]|\\.)*)(=?)(.*)", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.?)", re.DOTALL)
_SPECIAL: Final = ";=,\\"

_MASKS: Final = {
    "zero": "zero",
    "skip": "zero",
    "skipped": "zero",
    "random": "random",
    "standard": "random",
    "fixed": "random",
}


class OptionError(ValueError):
    """A text is no transport. ``hint`` says what would be right."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        # What is refused is quoted, and it may hold anything.
        super().__init__(printable(message))
        self.hint: str | None = None if hint is None else printable(hint)


@dataclass(frozen=True, slots=True)
class Side:
    """The words that one side of a relay knows."""

    name: Literal["listen_transport", "remote_transport"]
    words: frozenset[str]
    keys: dict[str, Literal["ws", "tls"]]
    """And which layer each belongs to."""

    def knows(self, name: str) -> bool:
        return name in self.words or name in self.keys

    def shape(self, name: str) -> str:
        return f"{name}=" if name in self.keys else name


LISTEN: Final = Side(
    "listen_transport",
    frozenset({"ws", "tls", "uot", "0rtt", "client_optional", "key_log"}),
    {
        "host": "ws",
        "path": "ws",
        "cert": "tls",
        "key": "tls",
        "ocsp": "tls",
        "servername": "tls",
        "alpn": "tls",
        "client_ca": "tls",
    },
)
REMOTE: Final = Side(
    "remote_transport",
    frozenset({"ws", "tls", "uot", "0rtt", "insecure", "key_log"}),
    {
        "host": "ws",
        "path": "ws",
        "mask": "ws",
        "sni": "tls",
        "alpn": "tls",
        "ca": "tls",
        "cert": "tls",
        "key": "tls",
    },
)
_SIDES: Final = (LISTEN, REMOTE)
# Words that say something about a layer, beside the layers themselves.
_OF_TLS: Final = frozenset({"insecure", "client_optional", "key_log"})


@dataclass(frozen=True, slots=True)
class Options:
    table: dict[str, Any]
    """As in ``[endpoints.listen_transport]``; empty if the text asks for nothing."""
    notices: list[str] = field(default_factory=list)
    """What was accepted and does nothing, or not what one might think."""


def parse_options(text: str, side: Side) -> Options:
    """Raises OptionError with the first mistake."""
    given: dict[str, str] = {}
    for raw in _tokens(text):
        name, value = _token(raw, side)
        if name in given:
            raise OptionError(f"{side.shape(name)} is given twice", "once is enough")
        given[name] = value
    _check_layers(given, side)
    table: dict[str, Any] = {}
    for name, value in given.items():
        if name in ("ws", "tls"):
            table.setdefault(name, {})
        elif name == "uot":
            table["uot"] = True
        elif name in side.keys:
            table.setdefault(side.keys[name], {})[name] = _value(name, value)
        elif name in _OF_TLS:
            table.setdefault("tls", {})[name] = True
    return Options(table, list(_notices(given, table)))


def escaped(value: str) -> str:
    """A value as it has to be written."""
    return "".join(f"\\{char}" if char in _SPECIAL else char for char in value)


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        found = _SEMICOLON.match(text, at)
        if found is None or found[1] is None:
            raise OptionError("a backslash at the end", r"\\ is one backslash")
        token = found[1].strip()
        if token:
            yield token
        at = found.end()


def _token(raw: str, side: Side) -> tuple[str, str]:
    """The name, which the side knows, and the value as written; empty for a bare word."""
    found = _EQUALS.fullmatch(raw)
    name, equals, value = found.groups() if found else (raw, "", "")
    name, value = name.strip(), value.strip()
    if not side.knows(name):
        raise _unknown(raw, name, side)
    if name in side.words:
        if equals:
            raise OptionError(f'"{name}" takes no value', name)
        return name, ""
    if not value:
        raise OptionError(f'"{name}" needs a value', f"{name}=...")
    _refuse_commas(raw, value, side)
    return name, value


def _unknown(raw: str, name: str, side: Side) -> OptionError:
    if _is_list(raw, side):
        return OptionError(
            f'"{raw}" has commas between options', f"semicolons: {raw.replace(',', ';')}"
        )
    for other in _SIDES:
        if other.knows(name):
            return OptionError(f'"{name}" belongs in {other.name}', None)
    known = [*sorted(side.words), *side.keys]
    meant = "ws" if name.lower() == "websocket" else nearest(name, known)
    hint = f"did you mean {side.shape(meant)}?" if meant else f"one of {words(known)}"
    return OptionError(f'unknown option "{name}"', hint)


def _is_list(raw: str, side: Side) -> bool:
    return "," in raw and side.knows(raw.partition(",")[0].partition("=")[0].strip())


def _refuse_commas(raw: str, value: str, side: Side) -> None:
    """``ws;host=a,path=/b`` is a host with a strange name, and surely not meant."""
    for part in _COMMA.findall(value)[1:]:
        name, equals, _ = part.partition("=")
        if side.knows(name.strip()) and (equals or name.strip() in side.words):
            raise OptionError(
                f'"{raw}" has a comma before {name.strip()}',
                rf"a semicolon separates options, and \, is a comma: {raw.replace(',', ';')}",
            )


def _check_layers(given: dict[str, str], side: Side) -> None:
    for name in given:
        layer = side.keys.get(name) or ("tls" if name in _OF_TLS else None)
        if layer is not None and layer not in given:
            shape = side.shape(name)
            raise OptionError(
                f'"{name}" is for {layer}, which is missing',
                f"{layer};{shape}{'...' * (name in side.keys)}",
            )
    if "ws" in given:
        for name in ("host", "path"):
            if name not in given:
                raise OptionError(f'"ws" needs {name}=', "ws;host=a.example;path=/chat")


def _value(name: str, raw: str) -> object:
    if name == "alpn":
        parts = (_plain(part).strip() for part in _COMMA.findall(raw))
        return [part for part in parts if part]
    value = _plain(raw)
    if name == "mask":
        if value not in _MASKS:
            raise OptionError(f'"{value}" is not a mask', f"one of {words(_MASKS)}")
        return _MASKS[value]
    return value


def _plain(raw: str) -> str:
    def single(found: re.Match[str]) -> str:
        if not found[1] or found[1] not in _SPECIAL:
            raise OptionError(
                f'"{found[0]}" stands for nothing', r"\\ is one backslash; \; \= \, are the others"
            )
        return found[1]

    return _ESCAPE.sub(single, raw)


def _notices(given: dict[str, str], table: dict[str, Any]) -> Iterator[str]:
    if "0rtt" in given:
        yield "0rtt has no effect: early data is never sent and never taken"
    if table.get("ws", {}).get("mask") == "random":
        yield "realm ignores mask, and its servers read random masks wrong"
    if "servername" in given and "cert" in given:
        yield "servername has no effect beside cert and key"
