"""Where control sockets are: the places for one of our own, and how to find that of another.

Knows directories and whether somebody listens; nothing of what is asked there.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from qanat.errors import ControlError

__all__ = [
    "SOCKET_NAME",
    "find_socket",
    "is_live",
    "own_directory",
    "possible_directories",
]

SOCKET_NAME: Final = "control.sock"
_SYSTEM: Final = Path("/run/qanat")


def own_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Where a program started by us puts its socket."""
    return possible_directories(environ)[0]


def possible_directories(environ: Mapping[str, str] | None = None) -> list[Path]:
    """Where sockets may be, our own place first.

    A service manager's choice comes first (RUNTIME_DIRECTORY), then ``/run/qanat`` for root and the
    runtime directory of the session for others; without one a directory of ours in /tmp.
    """
    environ = os.environ if environ is None else environ
    places = []
    if given := environ.get("RUNTIME_DIRECTORY"):
        places.append(Path(given.split(":")[0]))
    if os.geteuid() == 0:
        places.append(_SYSTEM)
    elif session := environ.get("XDG_RUNTIME_DIR"):
        places += [Path(session, "qanat"), _SYSTEM]
    else:
        places += [Path(f"/tmp/qanat-{os.geteuid()}"), _SYSTEM]  # noqa: S108 - checked when made
    return places


def is_live(path: Path) -> bool:
    """Whether somebody listens there. A socket that we may not ask counts as live."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(2.0)
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


def find_socket(environ: Mapping[str, str] | None = None) -> Path:
    """The socket of the only program that runs here.

    :raises ControlError: there is none, or there are several to choose from.
    """
    live = []
    denied = []
    for directory in possible_directories(environ):
        for path in _sockets(directory):
            if not os.access(path, os.W_OK):
                denied.append(path)
            elif is_live(path):
                live.append(path)
    if len(live) == 1:
        return live[0]
    if live:
        names = "".join(f"\n  {path}" for path in live)
        raise ControlError(
            f"several relays are running; choose one with --control PATH:{names}", code="several"
        )
    if denied:
        raise ControlError(f"no permission to use {denied[0]}", code="denied")
    raise ControlError(
        "no relay is running, and no proxy, as far as its control socket could be found (it may be "
        "elsewhere, with --control PATH, or off)",
        code="not_running",
    )


def _sockets(directory: Path) -> list[Path]:
    try:
        found = sorted(directory.glob("control*.sock"))
    except OSError:
        return []
    return [path for path in found if _is_socket(path)]


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
