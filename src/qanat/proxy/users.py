"""The file of users: names, hashed passwords, and what each user may have at most.

::

    # name:hash, then limits
    alice:$scrypt$...  connections=100 up=1MB/s down=10MB/s
    bob:$scrypt$...

Made by ``qanat proxy passwd FILE NAME`` and read again at every reload; connections that are made
keep going.
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qanat.config.quantities import QuantityError, parse_rate
from qanat.errors import ConfigError, Problem, QanatError
from qanat.proxy.auth import hash_password, is_hash

__all__ = ["UserEntry", "read_users", "remove_user", "store_user"]

LARGEST: Final = 16 * 1024 * 1024
"""Bytes of the file: more than 100,000 users."""

_LIMITS: Final = ("connections", "up", "down")


@dataclass(frozen=True, slots=True)
class UserEntry:
    """0 means no limit of the user's own."""

    name: str
    hashed: str = field(repr=False)
    connections: int = 0
    up: int = 0
    down: int = 0
    """Bytes a second."""


def check_name(name: str) -> str | None:
    """What is wrong with it as a user's name; None when nothing is."""
    if not name:
        return "a name is empty"
    if len(name.encode()) > 255:
        return "a name has at most 255 bytes"
    if any(one.isspace() or one in ":#," or not one.isprintable() for one in name):
        return "a name has no blanks, colons, commas or #"
    return None


def read_users(path: Path) -> dict[str, UserEntry]:
    """:raises ConfigError: every wrong line. Nothing of a hash is ever shown."""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        problem = Problem(f"can't be read: {error.strerror or error}", file=str(path))
        raise ConfigError([problem]) from None
    if len(raw) > LARGEST:
        raise ConfigError([Problem(f"is larger than {LARGEST // 2**20} MiB", file=str(path))])
    found: dict[str, UserEntry] = {}
    problems: list[Problem] = []
    for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            entry = _entry(line)
            if entry.name in found:
                raise ValueError(f"the user {entry.name} is there already")
            found[entry.name] = entry
        except ValueError as error:
            problems.append(Problem(str(error), file=str(path), line=number))
    if problems:
        raise ConfigError(problems[:20])
    return found


def _entry(line: str) -> UserEntry:
    credentials, *words = line.split()
    name, colon, hashed = credentials.partition(":")
    if not colon:
        raise ValueError("a line is name:hash; qanat proxy passwd FILE NAME writes one")
    if (wrong := check_name(name)) is not None:
        raise ValueError(wrong)
    if not is_hash(hashed):
        raise ValueError(
            f"the password of {name} is not hashed as we do; "
            f"qanat proxy passwd FILE {name} writes one"
        )
    limits: dict[str, int] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in _LIMITS:
            raise ValueError(f'"{word}" is none of {", ".join(f"{one}=" for one in _LIMITS)}')
        if key in limits:
            raise ValueError(f"{key} is given twice")
        if key == "connections":
            if not (value.isascii() and value.isdigit() and len(value) <= 9):
                raise ValueError(f'connections: "{value}" is not a number')
            limits[key] = int(value)
        else:
            try:
                limits[key] = parse_rate(value)
            except QuantityError as error:
                raise ValueError(f'{key}: "{value}" {error} ({error.hint})') from None
    return UserEntry(name, hashed, **limits)


def store_user(path: Path, name: str, password: str) -> bool:
    """Set the password of a user, who is added when new; the limits stay. True for a new one.

    The file is replaced as a whole, so that nobody reads half of it, and only we may read it.

    :raises QanatError: the name can't be used, or the file can't be written.
    """
    if (wrong := check_name(name)) is not None:
        raise QanatError(f"{wrong}: {name!r}", code="user")
    hashed = hash_password(password)
    lines, place = _lines_with(path, name)
    if place is None:
        lines.append(f"{name}:{hashed}")
    else:
        _, *words = lines[place].split()
        lines[place] = " ".join([f"{name}:{hashed}", *words])
    _replace(path, lines)
    return place is None


def remove_user(path: Path, name: str) -> bool:
    """False if there is no such user. :raises QanatError: the file can't be written."""
    lines, place = _lines_with(path, name)
    if place is None:
        return False
    del lines[place]
    _replace(path, lines)
    return True


def _lines_with(path: Path, name: str) -> tuple[list[str], int | None]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return [], None
    except (OSError, UnicodeDecodeError) as error:
        raise QanatError(f"{path} can't be read: {error}", code="user") from None
    for number, line in enumerate(lines):
        if line.lstrip().partition(":")[0] == name:
            return lines, number
    return lines, None


def _replace(path: Path, lines: list[str]) -> None:
    target = path.resolve()
    try:
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o600
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), mode)
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise QanatError(
            f"{path} can't be written: {error.strerror or error}", code="user"
        ) from None
