import json

import pytest

from benchmarks import report
from benchmarks.__main__ import QUESTIONS
from benchmarks.footprint import QUESTION
from benchmarks.machine import parse_cpu_model
from benchmarks.question import Outcome

MEMORY = QUESTION.series[0].name


def _outcome(*ours: float) -> Outcome:
    samples = {series.name: dict[str, list[float]]() for series in QUESTION.series}
    samples[MEMORY] = {"qanat": list(ours), "nginx": [19.04]}
    return Outcome(QUESTION, samples)


def test_tables() -> None:
    outcome = _outcome(20, 1_030, 25)
    numbers = report.numbers_table([outcome], ["qanat", "nginx", "socat"])
    assert numbers[1:] == [[MEMORY, "MiB", "25.0", "19.0", "-"]]
    assert report.bars_table([outcome])[1] == [MEMORY, "≤ 60 MiB", "25.0 MiB", "meets"]
    assert report.bars_table([_outcome(61)])[1][3] == "**misses**"


def test_terminal_columns_line_up() -> None:
    lines = report.align([["what", "a"], ["longer", "10.5"]]).splitlines()
    assert lines == ["what       a", "longer  10.5"]


def test_markdown() -> None:
    text = report.markdown([["what", "a"], ["x", "1"]])
    assert text == "| what | a |\n|---|---:|\n| x | 1 |"


def test_json_holds_every_round() -> None:
    value = report.as_json([_outcome(20, 21)], {"kernel": "6"}, rounds=2, seconds=1.0)
    value = json.loads(json.dumps(value))
    series = value["questions"][0]["series"][0]
    assert series["peers"]["qanat"]["rounds"] == [20, 21]
    assert series["peers"]["qanat"]["median"] == 20.5
    assert value["questions"][0]["bars"][0]["meets"] is True


def test_what_was_found_before_stays_beside_what_is_new() -> None:
    first = _outcome(20, 21)
    first.date = "2026-01-01"
    told = json.loads(json.dumps(report.as_json([first], {"date": "2026-01-01"}, 2, 1.0)))
    told["questions"].append({"name": "no more asked"})
    (again,) = report.earlier(told, QUESTIONS)
    assert (again.samples[MEMORY], again.date) == (first.samples[MEMORY], "2026-01-01")
    assert again.verdicts() == first.verdicts()
    later = _outcome(22)
    later.date = "2026-01-02"
    assert report.dates([later]) == "2026-01-02"
    assert report.dates([again, later]) == f"2026-01-02; 2026-01-01 ({QUESTION.name})"


def test_results_go_between_the_marks() -> None:
    page = f"# Title\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    new = report.replace_between_markers(page, "new")
    assert "old" not in new
    assert new.startswith("# Title\n")
    assert new.endswith(f"new\n\n{report.END}\nafter\n")
    assert report.replace_between_markers(new, "new") == new
    with pytest.raises(ValueError, match="marks"):
        report.replace_between_markers("# Title", "new")


def test_every_bar_belongs_to_a_series_of_its_question() -> None:
    for question in QUESTIONS.values():
        names = {series.name for series in question.series}
        assert {bar.series for bar in question.bars} <= names
        assert "qanat" in question.peers


def test_cpu_model() -> None:
    assert parse_cpu_model("processor\t: 0\nmodel name\t: Fast One\n") == "Fast One"
