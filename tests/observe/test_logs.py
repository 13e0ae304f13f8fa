"""The faces of the log, its output, and its restraint."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qanat.observe.logs import LEVELS, TRACE, JsonFormatter, Logs, LogSettings, TextFormatter

LINE = re.compile(r"^\[\d{4}-\d\d-\d\d\]\[\d\d:\d\d:\d\d\]\[([\w.]+)\]\[([A-Z]+)\](.*)$")


@contextmanager
def logs(settings: LogSettings) -> Iterator[Logs]:
    root = logging.getLogger()
    before = root.level
    made = Logs(settings)
    try:
        yield made
    finally:
        made.close()
        root.setLevel(before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_line_has_date_time_target_and_level(path: Path) -> None:
    with logs(LogSettings("debug", str(path))):
        logging.getLogger("qanat.relay").warning("%s is %d", "it", 5)
        logging.getLogger("qanat").debug("quiet")
    lines = [LINE.match(line) for line in path.read_text().splitlines()]
    assert [line.groups() for line in lines if line] == [
        ("qanat.relay", "WARN", "it is 5"),
        ("qanat", "DEBUG", "quiet"),
    ]


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_lets_through_what_is_as_grave(path: Path, level: str) -> None:
    with logs(LogSettings(level, str(path))):
        for number in LEVELS.values():
            if number <= logging.ERROR:
                logging.getLogger("qanat.x").log(number, "line")
    said = [m[2].lower() for m in map(LINE.match, path.read_text().splitlines()) if m]
    order = ["error", "warn", "info", "debug", "trace"]
    assert said == ([] if level == "off" else order[: order.index(level) + 1])


def test_no_text_from_outside_begins_a_line_or_steers_a_terminal() -> None:
    record = logging.makeLogRecord(
        {"name": "qanat", "levelno": 30, "msg": "a\n[fake]\x1b[2J\u202e"}
    )
    text = TextFormatter().format(record)
    assert text.isprintable()
    assert r"a\n[fake]\x1b[2J\u202e" in text


def test_colour_only_when_asked() -> None:
    record = logging.makeLogRecord({"name": "qanat", "levelno": TRACE, "msg": "m"})
    assert "\x1b" not in TextFormatter().format(record)
    assert "\x1b[35m[TRACE]" in TextFormatter(colour=True).format(record)


def test_json_lines_carry_the_fields() -> None:
    record = logging.makeLogRecord(
        {"name": "qanat.access", "levelno": 20, "msg": "%s!", "args": ("ü\n",), "fields": {"id": 7}}
    )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", told.pop("time"))
    assert told == {"level": "info", "logger": "qanat.access", "message": "ü\n!", "id": 7}


def test_an_exception_is_kept_in_both_faces() -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        record = logging.makeLogRecord({"exc_info": (type(error), error, None), "levelno": 40})
    assert "ValueError: why" in TextFormatter().format(record)
    assert "ValueError: why" in json.loads(JsonFormatter().format(record))["exception"]


def test_the_file_is_opened_again_after_a_rotation(path: Path) -> None:
    logger = logging.getLogger("qanat")
    with logs(LogSettings("info", str(path))) as made:
        logger.info("one")
        moved = path.rename(path.with_suffix(".1"))
        logger.info("two")
        made.reopen()
        logger.info("three")
    assert [line.rpartition("]")[2] for line in moved.read_text().splitlines()] == ["one", "two"]
    assert path.read_text().rstrip().endswith("]three")


def test_an_output_that_can_not_be_opened_changes_nothing(path: Path) -> None:
    with logs(LogSettings("info", str(path))) as made:
        with pytest.raises(IsADirectoryError):
            made.apply(LogSettings("error", str(path.parent)))
        assert made.settings.level == "info"
        logging.getLogger("qanat").info("still here")
    assert "still here" in path.read_text()


def test_settings_can_change_while_running(path: Path) -> None:
    other = path.with_name("other")
    with logs(LogSettings("warn", str(path))) as made:
        assert not made.access_wanted
        made.apply(LogSettings("info", str(other), "json"))
        assert made.access_wanted
        logging.getLogger("qanat").info("hello")
    assert path.read_text() == ""
    assert json.loads(other.read_text())["message"] == "hello"


def test_repeated_warnings_are_counted_instead_of_repeated(path: Path) -> None:
    logger = logging.getLogger("qanat.x")
    with logs(LogSettings("debug", str(path))):
        for number in range(100):
            logger.warning("no way to %s", number)
            logger.warning("another")
        for number in range(20):
            logger.debug("every one of these is wanted: %s", number)
    text = path.read_text()
    assert text.count("no way to") == 6
    assert "no way to 99 (95 more like it)" in text
    assert text.count("every one of these") == 20


def test_messages_of_one_kind_are_one_kind_whatever_their_text(path: Path) -> None:
    with logs(LogSettings("warn", str(path), "json")):
        for number in range(9):
            logging.getLogger("q").warning(f"text {number}", extra={"kind": "x"})  # noqa: G004
    last = json.loads(path.read_text().splitlines()[-1])
    assert last["message"] == "text 8 (4 more like it)"
    assert last["withheld"] == 4


def test_access_lines_are_never_withheld(path: Path) -> None:
    with logs(LogSettings("info", str(path))):
        for _ in range(50):
            logging.getLogger("qanat.access").info("flow ended")
    assert len(path.read_text().splitlines()) == 50


def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with logs(LogSettings("info", "/dev/full")) as made:
        logging.getLogger("qanat").info("into the void")
        assert made.lost == 1
