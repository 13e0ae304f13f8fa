from __future__ import annotations

from qanat.relay.notice import Notice


def test_a_record_becomes_a_notice() -> None:
    record = {"kind": "notice", "group": 1, "endpoint": "e", "code": "c", "text": "t", "count": 3}
    assert Notice.from_record(record) == Notice("e", "c", "t", 3)


def test_missing_fields_do_no_harm() -> None:
    assert Notice.from_record({}) == Notice(None, "unknown", "", 1)
