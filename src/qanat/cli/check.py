"""``qanat check``: every mistake of configuration files at once, and what they would relay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qanat.cli.output import emit, emit_json, emit_table, printable, report_problems
from qanat.cli.source import located
from qanat.errors import Absent, ConfigError, Problem

if TYPE_CHECKING:
    from qanat.plan import EndpointPlan

__all__ = ["Finding", "command", "examine", "protocols", "targets"]


@dataclass(slots=True)
class Finding:
    """What one file came to."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    endpoints: list[EndpointPlan] = field(default_factory=list)
    proxies: list[tuple[str, str]] = field(default_factory=list)
    """What is served and where, if it is a file of ``qanat proxy``."""

    @property
    def ok(self) -> bool:
        return all(problem.severity == "warning" for problem in self.problems)


@click.command("check")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def command(files: Sequence[str], as_json: bool) -> int:
    """Show every mistake in each FILE, or folder of files, and the endpoints it describes, or where
    its proxy listens.

    Ends with 1 if one of them could not be run.
    """
    findings = [examine(path) for path in files]
    if as_json:
        emit_json(
            {
                "ok": all(finding.ok for finding in findings),
                "files": [_plain(finding) for finding in findings],
            }
        )
    else:
        for finding in findings:
            _show(finding)
    return 0 if all(finding.ok for finding in findings) else 1


def examine(path: str) -> Finding:
    """Load and plan one file as a start would, without binding anything."""
    from qanat.config.load import load
    from qanat.config.proxy_file import is_of_a_proxy
    from qanat.relay.planning import plans

    finding = Finding(path)
    if is_of_a_proxy(Path(path)):
        return _proxy(finding)
    try:
        loaded = load(path)
    except ConfigError as error:
        finding.problems += error.problems
        return finding
    finding.problems += loaded.warnings
    try:
        finding.endpoints = plans(loaded.config)
    except ConfigError as error:
        finding.problems += located(error.problems, loaded)
    return finding


def _proxy(finding: Finding) -> Finding:
    from qanat.config.proxy import FORMS
    from qanat.config.proxy_file import load_proxy
    from qanat.proxy.serving import prepare

    try:
        prepared = prepare(load_proxy(Path(finding.file), {}))
    except ConfigError as error:
        finding.problems += error.problems
        return finding
    finding.problems += prepared.warnings()
    finding.proxies = [(form, at) for form in FORMS for at in getattr(prepared.config, form)]
    return finding


def targets(plan: EndpointPlan) -> str:
    """``host:port`` of the remotes, with a bar between several."""
    return "|".join(
        f"[{remote.host}]:{remote.port}" if ":" in remote.host else f"{remote.host}:{remote.port}"
        for remote in plan.remotes
    )


def protocols(plan: EndpointPlan) -> str:
    """``tcp``, ``udp`` or ``tcp+udp``."""
    both = {"tcp": plan.tcp, "udp": plan.udp}
    return "+".join(name for name, part in both.items() if part is not None) or "none"


def _show(finding: Finding) -> None:
    report_problems(finding.problems)
    if not finding.ok:
        errors = sum(problem.severity == "error" for problem in finding.problems)
        emit(f"{printable(finding.file)}: {errors} {'error' if errors == 1 else 'errors'}")
        return
    if finding.proxies:
        emit(f"{printable(finding.file)}: ok, a proxy")
        emit_table(("FORM", "LISTEN"), finding.proxies)
        return
    count = len(finding.endpoints)
    emit(f"{printable(finding.file)}: ok, {count} {'endpoint' if count == 1 else 'endpoints'}")
    emit_table(
        ("ENDPOINT", "LISTEN", "TARGET", "PROTOCOLS"),
        [(plan.id, plan.listen, targets(plan), protocols(plan)) for plan in finding.endpoints],
    )


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "file": finding.file,
        "ok": finding.ok,
        "problems": [_plain_problem(problem) for problem in finding.problems],
        "endpoints": [
            {
                "id": plan.id,
                "listen": plan.listen,
                "target": targets(plan),
                "protocols": protocols(plan).split("+"),
            }
            for plan in finding.endpoints
        ],
        "proxies": [{"form": form, "listen": at} for form, at in finding.proxies],
    }


def _plain_problem(problem: Problem) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "severity": problem.severity,
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "key": problem.key,
        "message": problem.message,
        "hint": problem.hint,
    }
    if not isinstance(problem.value, Absent):
        shown = isinstance(problem.value, str | int | float | bool | list | dict | None)
        plain["value"] = problem.value if shown else str(problem.value)
    return plain
