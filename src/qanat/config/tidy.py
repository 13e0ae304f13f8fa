"""From what a document says to what the models are asked to accept.

Takes out what a file may say and the models need not know: keys nobody knows (a warning, once for
each, with the nearest known one), keys that do nothing any more, empty values, other names of
keys, and the legacy format. Remembers where everything came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from qanat.config import legacy
from qanat.config.document import Document
from qanat.config.explain import nearest, simple
from qanat.config.models import ALIASES, DEPRECATED, MODELS
from qanat.config.places import KeyPath, Place, dotted, printable
from qanat.errors import Problem

__all__ = ["Source", "tidy"]

# Tables within tables, and what kind of table they are.
_TABLES: Final = {"log": "log", "dns": "dns", "network": "network", "limits": "limits"}
# In JSON, null is an error for these; for all others it means that the key is not there.
_NOT_NULL: Final = frozenset({*_TABLES, "endpoints", "extra_remotes"})
_KNOWN: Final = {kind: frozenset(model.model_fields) for kind, model in MODELS.items()}
_ORDINARY: Final = {kind: names - {*_TABLES, "endpoints"} for kind, names in _KNOWN.items()}


@dataclass(slots=True)
class Source:
    """One document, ready for the models."""

    document: Document
    content: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    written: dict[KeyPath, KeyPath] = field(default_factory=dict)
    """From paths in ``content`` to paths in the text, where they differ."""

    def locate(self, path: KeyPath) -> tuple[KeyPath, Place]:
        path = self.written.get(path, path)
        return path, self.document.place(path)


def tidy(document: Document) -> Source:
    source = Source(document)
    if legacy.is_legacy(document.content):
        endpoints, written, problems = legacy.convert(document.content, document.problem)
        source.content["endpoints"] = endpoints
        source.written |= written
        source.problems += problems
        return source
    _Walk(source).run()
    return source


class _Walk:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._document = source.document
        # Unknown and powerless keys, by the kind of table they are in.
        self._unknown: dict[tuple[str, str], list[KeyPath]] = {}
        self._powerless: dict[str, list[KeyPath]] = {}

    def run(self) -> None:
        self._source.content = self._table(self._document.content, "config", ())
        for (kind, key), paths in self._unknown.items():
            self._warn(paths, f"unknown key, ignored{_more(paths)}", _hint(kind, key))
        for paths in self._powerless.values():
            self._warn(paths, f"has no effect any more{_more(paths)}", "take the key out")

    def _table(self, table: dict[str, Any], kind: str, path: KeyPath) -> dict[str, Any]:
        known = _ORDINARY[kind]
        tidied: dict[str, Any] = {}
        for key, value in table.items():
            if key in known:
                if value is not None or key in _NOT_NULL:
                    tidied[key] = value
            else:
                self._special(table, tidied, key, kind, path)
        return tidied

    def _special(
        self, table: dict[str, Any], tidied: dict[str, Any], key: str, kind: str, path: KeyPath
    ) -> None:
        value = table[key]
        here = (*path, key)
        name = ALIASES.get(kind, {}).get(key)
        if name is not None:
            self._alias(table, tidied, name, path, here)
        elif key not in _KNOWN[kind]:
            if kind == "config" and (key == "$schema" or key.startswith("x-")):
                # For editors, and for YAML's anchors: what they hold is nobody else's business.
                return
            if key in DEPRECATED:
                self._powerless.setdefault(key, []).append(here)
            else:
                self._unknown.setdefault((kind, key), []).append(here)
        elif value is None and self._document.format == "yaml":
            # In YAML a table whose lines are all commented out is null.
            return
        elif key == "endpoints":
            tidied[key] = self._endpoints(value)
        elif isinstance(value, dict):
            tidied[key] = self._table(value, _TABLES[key], here)
        else:
            tidied[key] = value

    def _endpoints(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [
            self._table(entry, "endpoint", ("endpoints", number))
            if isinstance(entry, dict)
            else entry
            for number, entry in enumerate(value)
        ]

    def _alias(
        self,
        table: dict[str, Any],
        tidied: dict[str, Any],
        name: str,
        path: KeyPath,
        here: KeyPath,
    ) -> None:
        value = table[str(here[-1])]
        if value is None:
            return
        if table.get(name) is not None:
            self._source.problems.append(
                self._document.problem(
                    here, f"is another name of {name}, which is given too", value=simple(value)
                )
            )
            return
        tidied[name] = value
        self._source.written[(*path, name)] = here

    def _warn(self, paths: list[KeyPath], message: str, hint: str | None) -> None:
        self._source.problems.append(
            self._document.problem(paths[0], message, hint=hint, severity="warning")
        )


def _more(paths: list[KeyPath]) -> str:
    match len(paths) - 1:
        case 0:
            return ""
        case 1:
            return f" (also at {dotted(paths[1])})"
        case others:
            return f" (also at {dotted(paths[1])} and {others - 1} more)"


def _hint(kind: str, key: str) -> str | None:
    for other, names in _KNOWN.items():
        if other != kind and key in names:
            return _belongs(key, other, kind)
    aliases = ALIASES.get(kind, {})
    meant = nearest(key, [*_KNOWN[kind], *aliases])
    if meant is not None:
        return f"did you mean {aliases.get(meant, meant)}?"
    return None


def _belongs(key: str, kind: str, found_in: str) -> str:
    match kind, found_in:
        case "config", _:
            return f"{printable(key)} belongs at the top of the file"
        case "endpoint", _:
            return f"{printable(key)} belongs in an entry of endpoints"
        case "network", "endpoint":
            return f"{printable(key)} belongs in the endpoint's network table"
        case _:
            return f"{printable(key)} belongs in the table {kind}"
