"""The one tree of errors.

Every error that qanat raises on purpose descends from :class:`QanatError`, carries a stable
``code`` and a message for the person who can do something about it. This module does no I/O and
imports nothing of the package.
"""

from __future__ import annotations

import copyreg
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, final

__all__ = [
    "ABSENT",
    "Absent",
    "BindError",
    "ConfigError",
    "ControlError",
    "EngineClosed",
    "Problem",
    "QanatError",
    "RelayStateError",
    "Severity",
]

Severity = Literal["error", "warning"]


@final
class Absent:
    """The type of :data:`ABSENT`: no value at all, where ``None`` would be a value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<absent>"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        # Pickled by name, so that the marker stays the only one of its kind.
        return "ABSENT"


ABSENT: Final = Absent()


class QanatError(Exception):
    """The root. ``code`` is stable from one version to the next; the text may change."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def message(self) -> str:
        return str(self)

    def __reduce__(self) -> tuple[object, ...]:
        # The default calls the class with ``args``, which most of these constructors don't take.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration, with all that is known of where it is."""

    message: str
    """What is wrong and, if it can be said shortly, what would be right."""
    file: str | None = None
    line: int | None = None
    """From 1."""
    column: int | None = None
    """From 1."""
    key: str | None = None
    """The whole path to the key: ``endpoints[2].network.tcp_timeout``."""
    value: object = field(default=ABSENT)
    hint: str | None = None
    severity: Severity = "error"

    def __str__(self) -> str:
        """``FILE:LINE:COLUMN: key = value: message (hint)``, without what is not known."""
        parts = []
        if self.file is not None:
            numbers = [str(number) for number in (self.line, self.column) if number is not None]
            parts.append(":".join([self.file, *numbers]))
        elif self.line is not None:
            where = f"line {self.line}"
            parts.append(where if self.column is None else f"{where}, column {self.column}")
        if self.key is not None:
            shown = "" if isinstance(self.value, Absent) else f" = {_shown(self.value)}"
            parts.append(f"{self.key}{shown}")
        parts.append(self.message if self.hint is None else f"{self.message} ({self.hint})")
        return ": ".join(parts)


class ConfigError(QanatError):
    """A configuration can't be used. ``problems`` holds every mistake that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems), code="config")


class BindError(QanatError):
    """An endpoint can't listen. Nothing was changed: what had been bound beside it is closed."""

    def __init__(self, endpoint: str, address: str, errno: int | None, message: str) -> None:
        """``errno`` is the kernel's reason if it was the kernel that refused."""
        super().__init__(f"endpoint {endpoint}: can't listen on {address}: {message}", code="bind")
        self.endpoint = endpoint
        self.address = address
        self.errno = errno
        self.reason = message


class EngineClosed(QanatError):
    """The engine is gone: the relay was stopped, or this process is a fork of the one it ran in."""

    def __init__(self, message: str = "the engine is closed") -> None:
        super().__init__(message, code="closed")


class RelayStateError(QanatError):
    """A relay can't do this now: it runs already, or it does not run."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="state")


class ControlError(QanatError):
    """A running program could not be asked through its control socket, or it refused.

    ``code`` is ``not_running``, ``refused``, ``answer`` (not understood) or what the program said.
    """

    def __init__(self, message: str, *, code: str = "refused") -> None:
        super().__init__(message, code=code)


def _shown(value: object) -> str:
    # As a configuration has it, which is not as Python has it.
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
