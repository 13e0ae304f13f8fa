"""``qanat convert``: a configuration of any kind, legacy ones too, in the format wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from qanat.cli.output import emit, report_problems
from qanat.cli.strict import HELP_NAMES

__all__ = ["command", "write"]

_KINDS = ("toml", "json", "yaml")


@click.command("convert", context_settings={"help_option_names": list(HELP_NAMES)})
@click.argument("config", type=click.Path())
@click.option(
    "-t",
    "--type",
    "kind",
    type=click.Choice(_KINDS),
    help="The format to write; without it that of the name after -o, else toml.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="PATH",
    help="Write to this file, which is replaced, instead of stdout.",
)
def command(config: str, kind: str | None, output: str | None) -> int:
    """Rewrite CONFIG, a file or a folder of files, as TOML, JSON or YAML.

    The old format (listening_addresses, listening_ports, remote_addresses,
    remote_ports) becomes one endpoint for each rule. Comments are not kept.
    """
    from qanat.config.load import load

    loaded = load(config)
    report_problems(loaded.warnings)
    document = loaded.config.model_dump(mode="json", exclude_unset=True)
    text = write(document, kind or _kind(output))
    if output is None:
        emit(text)
    else:
        Path(output).write_text(text, encoding="utf-8")
    return 0


def write(document: dict[str, Any], kind: str) -> str:
    """The document as text of one of the three kinds."""
    if kind == "json":
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    if kind == "yaml":
        import yaml

        return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    from qanat.cli.toml_text import to_toml

    return to_toml(document)


def _kind(output: str | None) -> str:
    suffix = Path(output).suffix.lower().removeprefix(".") if output is not None else ""
    suffix = "yaml" if suffix == "yml" else suffix
    return suffix if suffix in _KINDS else "toml"
