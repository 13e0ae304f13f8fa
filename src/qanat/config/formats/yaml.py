"""YAML, by the rules of version 1.2 for what is a number, a truth or nothing.

By the older rules, which most readers still follow, ``off`` would be false and ``1:30`` a number of
90; here ``level: off`` and ``listen: 0:5000`` are what they look like. A key given twice is an
error. The tree is built in a loop from the parser's events: neither depth nor aliases of aliases
can exhaust anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from qanat.config.formats.syntax import DEEPEST, TOO_DEEP, SyntaxProblem, SyntaxProblems
from qanat.config.places import KeyPath, Lines, Places, dotted

__all__ = ["parse", "places"]

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_FLAGS: Final = {"true": True, "True": True, "TRUE": True} | dict.fromkeys(
    ("false", "False", "FALSE"), False
)
_INT: Final = re.compile(r"[-+]?[0-9]{1,1000}|0o[0-7]{1,1000}|0x[0-9a-fA-F]{1,1000}")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL: Final = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = "<<"


def parse(text: str) -> object:
    return _Build(text, keep_places=False).run()


def places(text: str) -> Places:
    build = _Build(text, keep_places=True)
    build.run()
    return build.places


@dataclass(slots=True)
class _Table:
    value: dict[str, object]
    path: KeyPath
    anchor: str | None
    keys: dict[str, int] = field(default_factory=dict)
    """Keys written in the table itself, and their lines."""
    due: str | None = None
    """The key whose value comes next."""
    due_at: Any = None
    merges: list[tuple[object, Any]] = field(default_factory=list)


@dataclass(slots=True)
class _List:
    value: list[object]
    path: KeyPath
    anchor: str | None


class _Build:
    def __init__(self, text: str, *, keep_places: bool) -> None:
        self.places: Places = {}
        self._text = text
        self._keep = keep_places
        self._problems: list[SyntaxProblem] = []
        self._open: list[_Table | _List] = []
        self._anchors: dict[str, object] = {}
        self._documents = 0
        self._root: object = None

    def run(self) -> object:
        try:
            for event in _events(self._text):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            self._problems.append(_problem(error))
        except yaml.reader.ReaderError as error:
            self._problems.append(_unreadable(self._text, error))
        except (yaml.YAMLError, UnicodeError, RecursionError) as error:
            self._problems.append(SyntaxProblem(f"not YAML: {type(error).__name__}"))
        if self._problems:
            raise SyntaxProblems(self._problems)
        return self._root

    def _take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent):
            self._tagged(event, "map")
            self._start(_Table({}, self._next(event), event.anchor), event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._tagged(event, "seq")
            self._start(_List([], self._next(event), event.anchor), event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents == 2:
                self._refuse(event, "a second document", "one configuration for each file")

    def _start(self, container: _Table | _List, event: Any) -> None:
        parent = self._open[-1] if self._open else None
        if isinstance(parent, _Table) and parent.due is None:
            self._refuse(event, "a key must be a text")
            parent.due, parent.due_at = "", event.start_mark
        if len(self._open) == DEEPEST:
            raise SyntaxProblems([TOO_DEEP])
        self._open.append(container)

    def _end(self) -> None:
        done = self._open.pop()
        if isinstance(done, _Table):
            self._merge(done)
        if done.anchor is not None:
            self._anchors[done.anchor] = done.value
        self._put(done.value)

    def _scalar(self, event: Any) -> None:
        parent = self._open[-1] if self._open else None
        if isinstance(parent, _Table) and parent.due is None:
            if event.anchor is not None:
                self._anchors[event.anchor] = event.value
            self._key(parent, event)
            return
        self._next(event)
        value = self._resolve(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        self._put(value)

    def _alias(self, event: Any) -> None:
        self._next(event)
        value: object = None
        if event.anchor in self._anchors:
            value = self._anchors[event.anchor]
        elif any(container.anchor == event.anchor for container in self._open):
            self._refuse(event, f"*{event.anchor} stands inside of what it names")
        else:
            self._refuse(event, f"*{event.anchor} names nothing that comes before it")
        parent = self._open[-1] if self._open else None
        if isinstance(parent, _Table) and parent.due is None:
            self._refuse(event, "a key must be a text")
            parent.due, parent.due_at = "", event.start_mark
            return
        self._put(value)

    def _key(self, table: _Table, event: Any) -> None:
        key = event.value
        mark = event.start_mark
        table.due, table.due_at = key, mark
        if key == _MERGE and event.implicit[0]:
            return
        if key in table.keys:
            message = f"is given twice, first in line {table.keys[key]}"
            where = dotted((*table.path, key))
            self._problems.append(SyntaxProblem(message, mark.line + 1, mark.column + 1, where))
        table.keys.setdefault(key, mark.line + 1)
        if self._keep:
            self.places.setdefault((*table.path, key), (mark.line + 1, mark.column + 1))

    def _next(self, event: Any) -> KeyPath:
        """The path of the value that comes now."""
        if not self._open:
            return ()
        parent = self._open[-1]
        if isinstance(parent, _Table):
            return (*parent.path, parent.due or "")
        path = (*parent.path, len(parent.value))
        if self._keep:
            self.places[path] = (event.start_mark.line + 1, event.start_mark.column + 1)
        return path

    def _put(self, value: object) -> None:
        if not self._open:
            self._root = value
            return
        parent = self._open[-1]
        if isinstance(parent, _List):
            parent.value.append(value)
            return
        key, parent.due = parent.due, None
        if key == _MERGE and _MERGE not in parent.keys:
            parent.merges.append((value, parent.due_at))
        elif key is not None:
            parent.value[key] = value

    def _merge(self, table: _Table) -> None:
        """``<<``: keys of other tables that the table does not have itself."""
        for value, mark in table.merges:
            tables = value if isinstance(value, list) else [value]
            for other in tables:
                if not isinstance(other, dict):
                    self._problems.append(
                        SyntaxProblem("<< needs a table", mark.line + 1, mark.column + 1)
                    )
                    break
                for key in other:
                    table.value.setdefault(key, other[key])
                    if self._keep:
                        at = (mark.line + 1, mark.column + 1)
                        self.places.setdefault((*table.path, key), at)

    def _resolve(self, event: Any) -> object:
        text: str = event.value
        tag = event.tag
        if tag is None or tag == "!":
            return _plain(text) if event.implicit[0] and tag is None else text
        value: object = _plain(text)
        kinds: dict[str, type | tuple[type, ...]] = {
            "bool": bool,
            "int": int,
            "float": (int, float),
            "null": type(None),
        }
        if tag == f"{_TAG}str":
            return text
        kind = kinds.get(tag.removeprefix(_TAG))
        if kind is None:
            self._refuse(event, f"{_short(tag)} is not a tag that is known here")
        elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self._refuse(event, f"this is no value for the tag {_short(tag)}")
        return float(value) if kind == (int, float) and isinstance(value, int) else value

    def _tagged(self, event: Any, kind: str) -> None:
        if event.tag not in (None, "!", f"{_TAG}{kind}"):
            self._refuse(event, f"{_short(event.tag)} is not a tag that is known here")

    def _refuse(self, event: Any, message: str, hint: str | None = None) -> None:
        mark = event.start_mark
        self._problems.append(SyntaxProblem(message, mark.line + 1, mark.column + 1, hint=hint))


def _events(text: str) -> Iterator[Any]:
    # libyaml is ten times as fast; some systems' packages are made without it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.parse(text, Loader=loader)


def _plain(text: str) -> object:
    """A scalar without quotes."""
    if text in _NULL:
        return None
    if text in _FLAGS:
        return _FLAGS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    special = _SPECIAL.get(text.lower())
    return text if special is None else float(special)


def _problem(error: yaml.MarkedYAMLError) -> SyntaxProblem:
    mark = error.problem_mark or error.context_mark
    message = error.problem or error.context or "not YAML"
    hint = None
    if "character '\\t'" in message or "tab" in message:
        hint = "YAML is indented with blanks, not with tabs"
    elif "mapping values are not allowed" in message:
        hint = "a value with a colon and a blank needs quotes, and keys of one table one indent"
    if mark is None:
        return SyntaxProblem(message)
    return SyntaxProblem(message, mark.line + 1, mark.column + 1, hint=hint)


def _unreadable(text: str, error: yaml.reader.ReaderError) -> SyntaxProblem:
    position = error.position if isinstance(error.position, int) else 0
    found = next((at for at, char in enumerate(text) if not _allowed(char)), position)
    return SyntaxProblem(
        "a character that YAML does not allow", *Lines(text).at(min(found, len(text)))
    )


def _allowed(char: str) -> bool:
    return (
        char in "\t\n\r\x85"
        or " " <= char <= "~"
        or "\xa0" <= char <= "\ud7ff"
        or ("\ue000" <= char <= "\ufffd" or char >= "\U00010000")
    )


def _short(tag: str) -> str:
    return tag.replace(_TAG, "!!") if len(tag) < 80 else f"{tag[:77]}..."
