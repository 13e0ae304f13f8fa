"""From a file and the words of a command line to the configuration of a proxy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from qanat.config.document import Document, decode, read
from qanat.config.explain import explain
from qanat.config.places import KeyPath, Place, printable
from qanat.config.proxy import FORMS, ProxyConfig
from qanat.errors import ConfigError, Problem

__all__ = ["LoadedProxy", "is_of_a_proxy", "load_proxy"]

LARGEST: Final = 4 * 1024 * 1024
"""Bytes of the file."""


@dataclass(frozen=True, slots=True)
class LoadedProxy:
    config: ProxyConfig
    file: Path | None
    _document: Document | None = None

    def problem(self, path: KeyPath, message: str, **more: Any) -> Problem:
        """A problem at a key, with its place when it came from the file."""
        if self._document is not None and path[0] in self._document.content:
            return self._document.problem(path, message, **more)
        return Problem(message, key=".".join(map(str, path)), **more)


def load_proxy(path: Path | None, given: Mapping[str, Any], *, app: bool = False) -> LoadedProxy:
    """What the file says, with what is ``given`` instead of the file's values.

    With an ``app`` of the user's there need be no address of a proxy.

    :raises ConfigError: every mistake.
    """
    document = None if path is None else _document(path)
    content = {} if document is None else dict(document.content)
    for key, value in given.items():
        inner = content.get(key)
        content[key] = (
            {**inner, **value} if isinstance(value, dict) and isinstance(inner, dict) else value
        )

    def locate(key: KeyPath) -> tuple[KeyPath, Place]:
        if document is None or not key or key[0] in given:
            return key, Place()
        return key, document.place(key)

    try:
        config = ProxyConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(explain(error, ProxyConfig, locate)) from None
    if not app and not any(getattr(config, form) for form in FORMS):
        problem = Problem(
            "there is nothing to listen on",
            file=None if path is None else printable(str(path)),
            key="mixed",
            hint='mixed = ":3128", socks5 = ":1080" or http = ":8080"',
        )
        raise ConfigError([problem])
    return LoadedProxy(config, path, document)


def is_of_a_proxy(path: Path) -> bool:
    """Whether a file says where a proxy listens, whatever else is wrong with it."""
    try:
        return path.is_file() and any(form in _document(path).content for form in FORMS)
    except ConfigError:
        return False


def _document(path: Path) -> Document:
    label = printable(str(path))
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        problem = Problem(f"can't be read: {error.strerror or error}", file=label)
        raise ConfigError([problem]) from None
    if len(raw) > LARGEST:
        raise ConfigError([Problem(f"is larger than {LARGEST // 2**20} MiB", file=label)])
    return read(decode(raw, label), label)
