"""The drawing of the rooms is well formed and names rooms that exist."""

import re
from xml.etree import ElementTree

from tests.docs.pages import ROOT

__all__: list[str] = []


def test_the_rooms_drawn_exist() -> None:
    drawing = ElementTree.parse(ROOT / "docs" / "architecture.svg")  # noqa: S314 - our own file
    texts = [text.text or "" for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert texts
    rooms = {room for text in texts for room in re.findall(r"\b[a-z_]+/[a-z_]*", text)}
    assert {"relay/program", "flow/pump", "runtime/"} <= rooms
    homes = [ROOT, ROOT / "src/qanat", ROOT / "engine", ROOT / "engine/src"]
    missing = {
        room
        for room in rooms
        if not any(
            (home / room).exists()
            or (home / f"{room}.py").exists()
            or (home / f"{room}.rs").exists()
            for home in homes
        )
    }
    assert not missing


def test_the_rooms_of_the_table_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = re.findall(r"^\| `([\w/.]+)` \|", page, re.MULTILINE)
    assert len(rooms) > 8
    assert [room for room in rooms if not (ROOT / room).exists()] == []
    inside = {
        path.name
        for path in (ROOT / "src/qanat").iterdir()
        if path.is_dir() and path.name != "__pycache__"
    }
    assert {room.removeprefix("src/qanat/") for room in rooms} >= inside
