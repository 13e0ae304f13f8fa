"""``qanat version``: which package, which engine, which Python, and what this kernel allows.

Must work on a broken installation, since that is when people are asked for its output: an engine
that is not there is a line of the answer and not an error.
"""

from __future__ import annotations

import json
import platform
from typing import Any

import click

from qanat.cli.output import emit, emit_json

__all__ = ["ENGINE_MISSING", "command", "package_version", "versions"]

ENGINE_MISSING = "the engine is not built: install the package (pip install .) or run 'make run'"


def package_version() -> str:
    """The installed package's version, else the engine's, else ``unknown``."""
    from importlib import metadata

    try:
        return metadata.version("qanat")
    except metadata.PackageNotFoundError:
        pass
    try:
        from qanat import _engine
    except ImportError:
        return "unknown"
    return _engine.__version__


def versions() -> dict[str, Any]:
    """Everything that the command shows, by name."""
    found: dict[str, Any] = {
        "version": package_version(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "engine": None,
        "abilities": None,
    }
    try:
        from qanat import _engine
    except ImportError as error:
        found["engine_error"] = f"{ENGINE_MISSING} ({error})"
        return found
    found["engine"] = json.loads(_engine.build_info())
    found["abilities"] = json.loads(_engine.abilities())
    return found


@click.command("version")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def command(as_json: bool) -> int:
    """Show the versions of package, engine and Python, and what this kernel lets us do."""
    found = versions()
    if as_json:
        emit_json(found)
        return 0
    emit(f"qanat      {found['version']}")
    if found["engine"] is None:
        emit(f"engine     {found['engine_error']}")
    else:
        emit(f"engine     {_pairs(found['engine'])}")
    emit(f"python     {found['python']}")
    emit(f"system     {found['system']}")
    if found["abilities"] is not None:
        emit(f"abilities  {_pairs(found['abilities'])}")
    return 0


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_word(value)}" for name, value in values.items())


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "+".join(str(part) for part in value) or "none"
    return str(value)
