"""``qanat schema``: the JSON Schema of configuration files, for editors and generators."""

from __future__ import annotations

import click

from qanat.cli.output import emit

__all__ = ["command"]


@click.command("schema")
def command() -> int:
    """Print the JSON Schema of configuration files.

    Editors use it to complete keys and mark mistakes, for TOML, YAML and JSON alike.
    """
    from qanat.config.schema import as_text

    emit(as_text().removesuffix("\n"))
    return 0
