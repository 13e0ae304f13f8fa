"""``qanat diff``: what a reload from one configuration to another would do, without doing it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from qanat.cli.check import protocols, targets
from qanat.cli.output import emit, emit_json, emit_table, report_problems
from qanat.cli.source import located
from qanat.errors import ConfigError

if TYPE_CHECKING:
    from qanat.config.models import Config
    from qanat.plan import EndpointPlan
    from qanat.relay.difference import Difference, FieldChange

__all__ = ["command"]

_APART = frozenset({"endpoints", "network", "dns"})
"""Top-level keys whose changes are seen in the endpoints."""


@click.command("diff")
@click.argument("old", type=click.Path())
@click.argument("new", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def command(old: str, new: str, as_json: bool) -> int:
    """Show what a reload from OLD to NEW would do to endpoints and settings.

    \b
    added      would begin to listen
    removed    would cease to listen; its flows live on
    changed    keeps its sockets; new flows go the new way, old flows live on
    rebound    needs new listening sockets; old flows live on
    untouched  would not notice
    """
    from qanat.relay.difference import difference

    before, after = _read(old), _read(new)
    found = difference(before[1], after[1])
    settings = _settings(before[0], after[0])
    if as_json:
        emit_json(_plain(found, settings))
    else:
        _show(found, settings)
    return 0


def _read(path: str) -> tuple[Config, list[EndpointPlan]]:
    from qanat.config.load import load
    from qanat.relay.planning import plans

    loaded = load(path)
    report_problems(loaded.warnings)
    try:
        return loaded.config, plans(loaded.config)
    except ConfigError as error:
        raise ConfigError(located(error.problems, loaded)) from error


def _settings(old: Config, new: Config) -> list[FieldChange]:
    """Keys beside the endpoints that differ, by their path."""
    from qanat.relay.difference import FieldChange

    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    return [
        FieldChange(key, before.get(key), after.get(key))
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    ]


def _flat(table: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if key in _APART:
            continue
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": part for inner, part in value.items()}
        else:
            flat[key] = value
    return flat


def _show(found: Difference, settings: list[FieldChange]) -> None:
    rows = [("added", plan.id, _way(plan)) for plan in found.added]
    rows += [("removed", plan.id, _way(plan)) for plan in found.removed]
    rows += [("changed", new.id, _fields(old, new)) for old, new in found.changed]
    rows += [("rebound", new.id, _fields(old, new)) for old, new in found.rebound]
    rows += [("setting", change.field, _sides(change)) for change in settings]
    if rows:
        emit_table(("CHANGE", "WHAT", "HOW"), rows)
    emit(str(found.report()))


def _way(plan: EndpointPlan) -> str:
    return f"{plan.listen} -> {targets(plan)} {protocols(plan)}"


def _fields(old: EndpointPlan, new: EndpointPlan) -> str:
    from qanat.relay.difference import changes

    return "; ".join(f"{change.field}: {_sides(change)}" for change in changes(old, new))


def _sides(change: FieldChange) -> str:
    return f"{_word(change.old)} -> {_word(change.new)}"


def _word(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return "|".join(_word(part) for part in value) or "none"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = dataclasses.asdict(value)
        if parts.keys() == {"host", "port"}:
            return f"{parts['host']}:{parts['port']}"
        return "(" + ", ".join(f"{name} {_word(part)}" for name, part in parts.items()) + ")"
    return str(value)


def _plain(found: Difference, settings: list[FieldChange]) -> dict[str, Any]:
    from qanat.relay.difference import changes

    def pair(old: EndpointPlan, new: EndpointPlan) -> dict[str, Any]:
        return {
            "id": new.id,
            "old_id": old.id,
            "fields": [_plain_change(change) for change in changes(old, new)],
        }

    return {
        "added": [plan.id for plan in found.added],
        "removed": [plan.id for plan in found.removed],
        "changed": [pair(old, new) for old, new in found.changed],
        "rebound": [pair(old, new) for old, new in found.rebound],
        "untouched": [plan.id for plan in found.untouched],
        "settings": [_plain_change(change) for change in settings],
    }


def _plain_change(change: FieldChange) -> dict[str, Any]:
    return {
        "field": change.field,
        "old": _plain_value(change.old),
        "new": _plain_value(change.new),
    }


def _plain_value(value: object) -> object:
    if isinstance(value, tuple | list):
        return [_plain_value(part) for part in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value
