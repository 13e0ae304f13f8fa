"""Logging for a program: one sink, a readable face and a face of JSON lines.

The library itself only uses stdlib loggers below ``qanat`` and never configures them; a program
calls :class:`Logs` once. Levels are ``off error warn info debug trace``; the output is ``stdout``,
``stderr`` or a file that is appended to and can be opened anew after a rotation.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final, Literal

from .repeats import Repeats, Withheld

__all__ = [
    "ACCESS",
    "DEFAULT_LEVEL",
    "DEFAULT_OUTPUT",
    "LEVELS",
    "TRACE",
    "Face",
    "JsonFormatter",
    "LogSettings",
    "Logs",
    "TextFormatter",
]

Face = Literal["text", "json"]

TRACE: Final = 5
OFF: Final = logging.CRITICAL + 50
LEVELS: Final[Mapping[str, int]] = {
    "off": OFF,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}
ACCESS: Final = "qanat.access"
"""The logger of one line for each ended flow, at INFO."""
DEFAULT_LEVEL: Final = "warn"
DEFAULT_OUTPUT: Final = "stderr"

_COLOURS: Final[Mapping[str, str]] = {
    "ERROR": "\x1b[31m",
    "WARN": "\x1b[33m",
    "INFO": "\x1b[32m",
    "DEBUG": "\x1b[36m",
    "TRACE": "\x1b[35m",
}
_DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: str = DEFAULT_LEVEL
    """One of :data:`LEVELS`."""
    output: str = DEFAULT_OUTPUT
    """``stdout``, ``stderr`` or a path, relative to the working directory."""
    face: Face = "text"


def _level_name(number: int) -> str:
    for name in ("error", "warn", "info", "debug"):
        if number >= LEVELS[name]:
            return name.upper()
    return "TRACE"


def _one_line(text: str) -> str:
    """Nothing that came from elsewhere may begin a line of its own or steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class TextFormatter(logging.Formatter):
    """``[date][time][target][LEVEL]message`` in local time; colour only for a terminal."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        day, clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created)).split()
        level = _level_name(record.levelno)
        message = _one_line(record.getMessage())
        if getattr(record, "show_fields", False):
            message = f"{message} {_as_words(record.__dict__.get('fields', {}))}"
        if self._colour:
            head = (
                f"{_DIM}[{day}][{clock}][{record.name}]{_PLAIN}{_COLOURS[level]}[{level}]{_PLAIN}"
            )
        else:
            head = f"[{day}][{clock}][{record.name}][{level}]"
        text = head + message
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def _as_words(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={_word(value)}" for key, value in fields.items() if value is not None)


def _word(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    text = str(value)
    if text and text.isprintable() and not any(c in text for c in ' "='):
        return text
    return json.dumps(text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _timestamp(record.created),
            "level": _level_name(record.levelno).lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = record.__dict__.get("fields")
        if fields:
            line.update(fields)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def _timestamp(seconds: float) -> str:
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    millis = int(seconds % 1 * 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{millis:03d}{zone[:3]}:{zone[3:]}"


class _Sink(logging.Handler):
    """Writes lines to the one output, with repeats counted instead of repeated.

    A line that can't be written (disk full, reader gone) is dropped and counted: logging must never
    take the program down.
    """

    def __init__(self, settings: LogSettings) -> None:
        super().__init__()
        self._repeats: Repeats[logging.LogRecord] = Repeats()
        self.lost = 0
        self._stream: IO[str] = sys.stderr
        self._owned = False
        self.direct(settings)

    def direct(self, settings: LogSettings) -> None:
        """Write by these settings from now on; on OSError nothing has changed."""
        stream, owned = _open(settings.output)
        formatter: logging.Formatter
        if settings.face == "json":
            formatter = JsonFormatter()
        else:
            formatter = TextFormatter(colour=_wants_colour(stream))
        with self._locked():
            old, old_owned = self._stream, self._owned
            self._stream, self._owned = stream, owned
            self.setFormatter(formatter)
        if old_owned:
            _close_quietly(old)

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING and record.name != ACCESS:
            kind: Hashable = record.__dict__.get("kind") or record.msg
            if not self._repeats.admit((record.name, kind), record, time.monotonic()):
                return
        self._write(self.format(record))

    def tell_repeats(self, *, all_of_them: bool = False) -> None:
        with self._locked():
            due = self._repeats.due(time.monotonic(), all_of_them=all_of_them)
            for withheld in due:
                self._write(self.format(_summed_up(withheld)))

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self.lost += 1

    def _locked(self) -> threading.RLock:
        assert self.lock is not None  # noqa: S101 - logging.Handler always makes one
        return self.lock

    def close(self) -> None:
        with self._locked():
            if self._owned:
                _close_quietly(self._stream)
                self._stream, self._owned = sys.stderr, False
        super().close()


def _summed_up(withheld: Withheld[logging.LogRecord]) -> logging.LogRecord:
    last = withheld.last
    record = logging.makeLogRecord(last.__dict__)
    more = "1 more like it" if withheld.count == 1 else f"{withheld.count} more like it"
    record.msg, record.args = "%s (%s)", (last.getMessage(), more)
    record.created = time.time()
    record.__dict__["fields"] = {**last.__dict__.get("fields", {}), "withheld": withheld.count}
    return record


def _open(output: str) -> tuple[IO[str], bool]:
    stream = {"stdout": sys.stdout, "stderr": sys.stderr}.get(output)
    if stream is not None:
        return stream, False
    if output in ("stdout", "stderr"):
        # Started with the stream closed: Python has none then.
        output = os.devnull
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(output, flags, 0o640)
    return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace"), True


def _close_quietly(stream: IO[str]) -> None:
    try:
        stream.close()
    except OSError:
        return


def _wants_colour(stream: IO[str]) -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


class Logs:
    """The program's logging, set up when made and taken down by :meth:`close`.

    :raises OSError: the output can't be opened (also from :meth:`apply` and :meth:`reopen`, which
        then leave everything as it was).
    """

    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        self._sink = _Sink(settings)
        logging.addLevelName(TRACE, "TRACE")
        logging.getLogger().addHandler(self._sink)
        self._set_level(settings.level)

    @property
    def settings(self) -> LogSettings:
        return self._settings

    @property
    def access_wanted(self) -> bool:
        """Whether access lines would be written; when not, nobody need make them."""
        return LEVELS[self._settings.level] <= logging.INFO

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._sink.lost

    def apply(self, settings: LogSettings) -> None:
        """Go by other settings; the output is opened anew even if it has the same name."""
        self._sink.direct(settings)
        self._settings = settings
        self._set_level(settings.level)

    def reopen(self) -> None:
        """Open the output again by its name, after a rotation has moved the file away."""
        self.apply(self._settings)

    def tick(self) -> None:
        """Tell what was withheld; to be called about once a second."""
        self._sink.tell_repeats()

    def close(self) -> None:
        self._sink.tell_repeats(all_of_them=True)
        logging.getLogger().removeHandler(self._sink)
        self._sink.close()

    @staticmethod
    def _set_level(level: str) -> None:
        number = LEVELS[level]
        logging.getLogger().setLevel(number)
        # asyncio's chatter about itself is nobody's business below a warning.
        logging.getLogger("asyncio").setLevel(max(number, logging.WARNING))
