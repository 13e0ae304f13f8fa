"""What the engine remarks, in the log."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest

from qanat.observe.notices import write_notice


@dataclass(frozen=True)
class Remark:
    endpoint: str | None = "web"
    code: str = "accept"
    text: str = "can't accept"
    count: int = 1


@pytest.mark.parametrize(
    ("remark", "text"),
    [
        (Remark(), "web: can't accept"),
        (Remark(count=7), "web: can't accept (7 times)"),
        (Remark(endpoint=None), "can't accept"),
    ],
)
def test_a_remark_is_a_warning(caplog: pytest.LogCaptureFixture, remark: Remark, text: str) -> None:
    write_notice(remark)
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == (
        "qanat.engine",
        logging.WARNING,
        text,
    )
    assert record.__dict__["kind"] == (remark.endpoint, "accept")
    assert record.__dict__["fields"]["count"] == remark.count


def test_changes_of_two_remotes_are_no_repeats_of_each_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for remote in ("a:1", "b:1"):
        write_notice(Remark(code="remote_down", text=f"{remote} is down: refused"))
    first, second = (record.__dict__["kind"] for record in caplog.records)
    assert first != second
