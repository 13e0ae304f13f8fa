"""The legacy format: four lists of texts in one JSON object. Pure.

``listening_addresses``, ``listening_ports``, ``remote_addresses`` and ``remote_ports``; ports may
be ranges. The rules are as many as there are listening ports; the other lists are cut to that
length, or filled up with their first entry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

from qanat.config.explain import simple
from qanat.config.places import KeyPath
from qanat.errors import ABSENT, Problem

__all__ = ["KEYS", "MOST", "convert", "is_legacy"]

KEYS: Final = ("listening_addresses", "listening_ports", "remote_addresses", "remote_ports")

MOST: Final = 65_536
"""Rules that one file may give: enough for every port there is."""

_PORTS: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5})(?:-.*)?)?")

_Entry: TypeAlias = tuple[str, KeyPath]
"""A text, and where it is from."""


class Tell(Protocol):
    """Makes a problem of a path and what is wrong there."""

    def __call__(self, path: KeyPath, message: str, **more: Any) -> Problem: ...


def is_legacy(content: Mapping[str, object]) -> bool:
    return "endpoints" not in content and any(key in content for key in KEYS)


def convert(
    content: Mapping[str, object], tell: Tell
) -> tuple[list[dict[str, str]], dict[KeyPath, KeyPath], list[Problem]]:
    """The endpoints, where their values are from, and what is wrong or worth knowing."""
    problems = [
        tell(
            (),
            "the legacy format is read, but nothing beyond addresses can be said in it",
            hint="qanat convert rewrites the file",
            severity="warning",
        )
    ]
    lists = {key: _entries(content, key, tell, problems) for key in KEYS}
    ports = _flat(lists["listening_ports"], tell, problems)
    remote_ports = _flat(lists["remote_ports"], tell, problems)
    if any(problem.severity == "error" for problem in problems):
        return [], {}, problems
    columns = (lists["listening_addresses"], ports, lists["remote_addresses"], remote_ports)
    for key, column in zip(KEYS, columns, strict=True):
        if not column:
            problems.append(tell((key,), "there is no entry in it"))
    if any(problem.severity == "error" for problem in problems):
        return [], {}, problems
    endpoints: list[dict[str, str]] = []
    written: dict[KeyPath, KeyPath] = {}
    for number, (port, port_path) in enumerate(ports):
        listen, listen_path = _at(columns[0], number)
        remote, remote_path = _at(columns[2], number)
        remote_port, _ = _at(columns[3], number)
        endpoints.append({"listen": f"{listen}:{port}", "remote": f"{remote}:{remote_port}"})
        written["endpoints", number] = port_path
        written["endpoints", number, "listen"] = listen_path
        written["endpoints", number, "remote"] = remote_path
    return endpoints, written, problems


def _entries(
    content: Mapping[str, object], key: str, tell: Tell, problems: list[Problem]
) -> list[_Entry]:
    if key not in content:
        problems.append(tell((key,), "is missing", hint=f"the legacy format has {', '.join(KEYS)}"))
        return []
    value = content[key]
    if not isinstance(value, list):
        problems.append(tell((key,), "must be a list of texts", value=simple(value)))
        return []
    entries: list[_Entry] = []
    for number, entry in enumerate(value):
        if isinstance(entry, str):
            entries.append((entry, (key, number)))
            continue
        plain = isinstance(entry, int) and not isinstance(entry, bool)
        shown = simple(entry)
        hint = f'"{shown}"' if plain and shown is not ABSENT else None
        problems.append(tell((key, number), "must be text", value=shown, hint=hint))
    return entries


def _flat(entries: Sequence[_Entry], tell: Tell, problems: list[Problem]) -> list[_Entry]:
    """Ranges of ports, one by one. A range that runs backwards is empty."""
    ports: list[_Entry] = []
    for text, path in entries:
        found = _PORTS.fullmatch(text)
        first = int(found[1]) if found else -1
        last = int(found[2] or first) if found else -1
        if found is None or max(first, last) > 65_535:
            hint = 'a port or a range, as "8080" or "8080-8082", up to 65535'
            problems.append(tell(path, "is not a port", value=simple(text), hint=hint))
            continue
        if first > last:
            problems.append(
                tell(
                    path,
                    "the range runs backwards and is empty",
                    value=text,
                    hint=f"{last}-{first}",
                    severity="warning",
                )
            )
        if len(ports) + last - first >= MOST:
            problems.append(tell(path, f"more than {MOST} ports", value=text))
            return ports
        ports += [(str(port), path) for port in range(first, last + 1)]
    return ports


def _at(column: Sequence[_Entry], number: int) -> _Entry:
    return column[number] if number < len(column) else column[0]
