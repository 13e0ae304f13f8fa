"""What docs/operation.md lists is what there is: reasons, signals, exit codes, commands."""

import re

from qanat.cli.commands import SECTIONS
from qanat.observe.reasons import ENDED
from qanat.process.signals import HANDLED
from tests.docs.pages import ROOT

__all__: list[str] = []

PAGE = (ROOT / "docs" / "operation.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| (.+?) \|", text, re.MULTILINE)[1:]


def test_every_reason_has_advice_and_none_is_invented() -> None:
    assert re.findall(r"^\| `(\w+)` \|", section("Why a flow ended"), re.MULTILINE) == list(ENDED)


def test_every_signal_is_told() -> None:
    told = {name for cell in first_cells(section("Signals")) for name in cell.split(", ")}
    assert told == {signal.name for signal in HANDLED}


def test_every_command_for_a_running_relay_is_told() -> None:
    told = re.findall(r"^\| `qanat (\w+)` \|", section("Watch and step in"), re.MULTILINE)
    assert told == [entry.name for entry in SECTIONS["A running relay"]]
