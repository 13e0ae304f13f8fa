"""From a file, a folder, a pipe or a text to a configuration, with every mistake at once.

The only module of this room that opens files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from qanat.config.checks import check
from qanat.config.document import EXTENSIONS, decode, read
from qanat.config.explain import explain
from qanat.config.merge import Overrides, apply_overrides, combine, effective
from qanat.config.models import PART, Config
from qanat.config.origins import Origins
from qanat.config.places import KeyPath, printable
from qanat.config.tidy import Source, tidy
from qanat.errors import ConfigError, Problem

__all__ = ["Loaded", "load"]

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of one file. Two million endpoints fit into it; a device that never ends does not."""

MOST_FILES: Final = 10_000
"""Files of one folder, so that ``-c /`` comes back with an answer."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be run, and what is known about it."""

    config: Config
    warnings: list[Problem]
    files: list[Path]
    origins: Origins = field(default_factory=Origins, compare=False, repr=False)
    """Where its values were written."""


def load(
    path: Path | str | None = None,
    *,
    text: str | None = None,
    name: str = "REALM_CONF",
    overrides: Overrides | None = None,
) -> Loaded:
    """Read a configuration from ``path`` (a file, a folder or a pipe) or from ``text``.

    ``name`` is what messages call the text. With ``overrides`` the command line's values are
    applied, and what is warned of is what will be run.

    Raises ConfigError with every mistake; warnings are among its problems.
    """
    if (path is None) == (text is None):
        raise TypeError("load() takes a path or a text")
    reading = _Reading()
    if text is not None:
        reading.add_text(text, name)
    else:
        reading.add_path(os.fspath(path) if path is not None else "")
    return reading.finish(overrides)


class _Reading:
    """What was read so far."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._files: list[Path] = []
        self._parts: list[Config] = []
        self._origins = Origins()
        self._complete = True
        self._label: str | None = None

    def add_path(self, path: str) -> None:
        self._label = printable(path)
        try:
            folder = stat.S_ISDIR(os.stat(path).st_mode)
        except (OSError, ValueError) as error:
            self._unreadable(path, error)
            return
        if not folder:
            self._add_file(path)
            return
        files = sorted(self._walk(path), key=lambda file: Path(file).parts)
        for file in files:
            self._add_file(file)
        if not files and not self._problems:
            self._error(
                f"no files to read in this folder: their names end in {', '.join(EXTENSIONS)}",
                path,
            )

    def add_text(self, text: str, name: str) -> None:
        self._label = name
        try:
            self._add_source(tidy(read(text, name)))
        except ConfigError as error:
            self._refuse(error.problems)

    def finish(self, overrides: Overrides | None) -> Loaded:
        config = combine(self._parts) if self._parts else Config()
        if self._complete and not config.endpoints and not _has(self._problems, "error"):
            self._problems.append(
                Problem(
                    "no endpoints: there is nothing to relay",
                    file=self._label,
                    hint='[[endpoints]] with listen = "0.0.0.0:5000" and remote = "example.com:80"',
                )
            )
        try:
            if overrides is not None:
                config = apply_overrides(config, overrides)
        except ConfigError as error:
            self._refuse(error.problems)
        else:
            self._problems += check(effective(config), self._origins)
        # The same mistake in a text that is used many times is one mistake.
        problems = list(dict.fromkeys(self._problems))
        if _has(problems, "error"):
            raise ConfigError(sorted(problems, key=_position))
        return Loaded(config, sorted(problems, key=_position), self._files, self._origins)

    def _walk(self, root: str) -> Iterator[str]:
        """Files with a known extension; hidden ones are left out, links are followed once."""
        seen: set[tuple[int, int]] = set()
        found = 0
        for folder, folders, files in os.walk(root, followlinks=True, onerror=self._unlisted):
            try:
                status = os.stat(folder)
            except OSError as error:
                self._unlisted(error)
                folders.clear()
                continue
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                folders.clear()
                continue
            seen.add(identity)
            # The order decides by which of several links a folder is entered.
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in files:
                if name.startswith(".") or os.path.splitext(name)[1] not in EXTENSIONS:
                    continue
                found += 1
                if found > MOST_FILES:
                    self._error(f"more than {MOST_FILES} configuration files", root)
                    return
                yield os.path.join(folder, name)

    def _add_file(self, path: str) -> None:
        try:
            with open(path, "rb") as file:
                raw = file.read(LARGEST + 1)
        except OSError as error:
            self._unreadable(path, error)
            return
        if len(raw) > LARGEST:
            self._error(f"is larger than {LARGEST // 2**20} MiB", path)
            return
        self._files.append(Path(path))
        label = printable(path)
        try:
            self._add_source(tidy(read(decode(raw, label), label)))
        except ConfigError as error:
            self._refuse(error.problems)

    def _add_source(self, source: Source) -> None:
        self._problems += source.problems
        if _has(source.problems, "error"):
            self._complete = False
        try:
            part = Config.model_validate(source.content, context=PART)
            kept: Sequence[int] = range(len(part.endpoints))
        except ValidationError as error:
            self._complete = False
            self._problems += explain(error, Config, source.locate)
            rest = _without(source.content, [details["loc"] for details in error.errors()])
            part, kept = _salvaged(*rest)
        self._parts.append(part)
        self._origins.endpoints += [(source, number) for number in kept]
        for key in part.model_fields_set - {"endpoints"}:
            table = getattr(part, key)
            names = getattr(table, "model_fields_set", None)
            paths: list[KeyPath] = [(key,)] if names is None else [(key, name) for name in names]
            for path in paths:
                self._origins.fields.setdefault(path, source)

    def _refuse(self, problems: Sequence[Problem]) -> None:
        self._complete = False
        self._problems += problems

    def _error(self, message: str, path: str) -> None:
        self._refuse([Problem(message, file=printable(path))])

    def _unreadable(self, path: str, error: OSError | ValueError) -> None:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self._error(f"can't be read: {why}", path)

    def _unlisted(self, error: OSError) -> None:
        path = printable(str(error.filename)) if error.filename else self._label
        message = f"the folder can't be read: {error.strerror}"
        if path == self._label:
            self._refuse([Problem(message, file=path)])
        else:
            self._problems.append(Problem(message, file=path, severity="warning"))


def _without(content: dict[str, Any], wrong: Sequence[KeyPath]) -> tuple[dict[str, Any], list[int]]:
    """The content less what is wrong, and the numbers of the endpoints that are left."""
    endpoints = content.get("endpoints")
    numbers = {path[1] for path in wrong if path[:1] == ("endpoints",) and len(path) > 1}
    rest = {
        key: {name: inner for name, inner in value.items() if (key, name) not in wrong}
        if isinstance(value, dict)
        else value
        for key, value in content.items()
        if (key,) not in wrong and key != "endpoints"
    }
    # A path into a list within a table, as of name servers, takes the whole key out.
    for path in wrong:
        if len(path) > 2 and path[0] != "endpoints":
            rest[str(path[0])].pop(str(path[1]), None)
    kept: list[int] = []
    if isinstance(endpoints, list):
        kept = [number for number in range(len(endpoints)) if number not in numbers]
        rest["endpoints"] = [endpoints[number] for number in kept]
    return rest, kept


def _salvaged(content: dict[str, Any], kept: Sequence[int]) -> tuple[Config, Sequence[int]]:
    """What is right of a configuration in which something is wrong, for the checks of the whole."""
    try:
        return Config.model_validate(content, context=PART), kept
    except ValidationError:
        return Config(), ()


def _has(problems: Sequence[Problem], severity: str) -> bool:
    return any(problem.severity == severity for problem in problems)


def _position(problem: Problem) -> tuple[str, int, int]:
    return (problem.file or "", problem.line or 0, problem.column or 0)
