"""Outcomes as tables for a terminal or a page, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import measure
from benchmarks.question import Outcome, Question

__all__ = [
    "BEGIN",
    "END",
    "align",
    "as_json",
    "bars_table",
    "bystanders",
    "dates",
    "earlier",
    "markdown",
    "numbers_table",
    "replace_between_markers",
]

BEGIN = "<!-- results: written by `make bench`, do not edit between these marks -->"
END = "<!-- end of results -->"

Table = list[list[str]]


def bars_table(outcomes: Sequence[Outcome]) -> Table:
    rows: Table = [["what", "bar", "qanat", ""]]
    words = {True: "meets", False: "**misses**", None: "-"}
    rows += [
        [verdict.what, verdict.bar, verdict.value, words[verdict.meets]]
        for outcome in outcomes
        for verdict in outcome.verdicts()
    ]
    return rows


def numbers_table(outcomes: Sequence[Outcome], peers: Sequence[str]) -> Table:
    """Medians; how far the rounds were apart stands in the JSON."""
    rows: Table = [["what", "unit", *peers]]
    for outcome in outcomes:
        for series in outcome.question.series:
            samples = outcome.samples[series.name]
            if any(samples.values()):
                cells = [
                    f"{measure.median(samples[peer]):,.{series.digits}f}"
                    if samples.get(peer)
                    else "-"
                    for peer in peers
                ]
                rows.append([series.name, series.unit, *cells])
    return rows


def align(table: Table) -> str:
    """For a terminal: columns of equal width, numbers to the right."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip().replace("**", ""))
    return "\n".join(lines)


def markdown(table: Table) -> str:
    head, *rows = table
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def as_json(
    outcomes: Sequence[Outcome], machine: Mapping[str, str], rounds: int, seconds: float
) -> dict[str, Any]:
    return {
        "machine": dict(machine),
        "rounds": rounds,
        "seconds": seconds,
        "questions": [
            {
                "name": outcome.question.name,
                "date": outcome.date,
                "series": [
                    {
                        "name": series.name,
                        "unit": series.unit,
                        "better": series.better,
                        "peers": {
                            peer: {
                                "median": measure.median(values),
                                "spread": round(measure.spread(values), 4),
                                "rounds": values,
                            }
                            for peer, values in outcome.samples[series.name].items()
                        },
                    }
                    for series in outcome.question.series
                ],
                "bars": [
                    {
                        "what": verdict.what,
                        "bar": verdict.bar,
                        "value": verdict.value,
                        "meets": verdict.meets,
                    }
                    for verdict in outcome.verdicts()
                ],
                "failures": dict(outcome.failures),
                "bystanders": [round(share, 3) for share in outcome.bystanders],
            }
            for outcome in outcomes
        ],
    }


def earlier(told: Mapping[str, Any], questions: Mapping[str, Question]) -> list[Outcome]:
    """What an earlier run has found, of questions that there still are."""
    found = []
    for entry in told["questions"]:
        question = questions.get(entry["name"])
        if question is None:
            continue
        outcome = Outcome(question, {series.name: {} for series in question.series})
        for series in entry["series"]:
            if series["name"] in outcome.samples:
                outcome.samples[series["name"]] = {
                    peer: list(numbers["rounds"]) for peer, numbers in series["peers"].items()
                }
        outcome.failures = dict(entry["failures"])
        outcome.bystanders = list(entry["bystanders"])
        outcome.date = entry.get("date") or told["machine"]["date"]
        found.append(outcome)
    return found


def dates(outcomes: Sequence[Outcome]) -> str:
    """The latest one, and which questions are older."""
    latest = max(outcome.date for outcome in outcomes)
    older: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.date != latest:
            older.setdefault(outcome.date, []).append(outcome.question.name)
    parts = [f"{date} ({', '.join(names)})" for date, names in sorted(older.items(), reverse=True)]
    return "; ".join([latest, *parts])


def bystanders(outcomes: Sequence[Outcome]) -> str:
    """A sentence on how quiet the machine was, for whoever reads the numbers."""
    shares = [share for outcome in outcomes for share in outcome.bystanders]
    if not shares:
        return "nothing measured"
    middle, most = measure.median(shares), max(shares)
    return (
        f"others used {middle:.0%} of the processors during a sample (median), {most:.0%} at most"
    )


def replace_between_markers(page: str, text: str) -> str:
    """The page with its results exchanged; ValueError if it has no place for them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError("the page lacks the marks between which results belong")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
