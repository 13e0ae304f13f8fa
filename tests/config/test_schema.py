"""The schema in the repository is that of the models, and says what they say."""

import json
from pathlib import Path
from typing import Any

from qanat.config.models import TABLES
from qanat.config.schema import as_text, schema

__all__: list[str] = []

PUBLISHED = Path(__file__).parents[2] / "docs" / "schema.json"


def test_the_published_schema_is_up_to_date() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == as_text(), (
        "run: python -m qanat.config.schema docs/schema.json"
    )


def test_every_key_is_in_it_with_its_description() -> None:
    made = schema()
    assert made["$schema"].startswith("https://json-schema.org/")
    for model in TABLES:
        table = made["$defs"].get(model.__name__, made)
        assert set(table["properties"]) == set(model.model_fields)
        assert all(entry["description"] for entry in table["properties"].values())
        assert table["additionalProperties"] is False


def test_ranges_words_and_needs_are_in_it() -> None:
    made = schema()
    network: dict[str, Any] = made["$defs"]["Network"]["properties"]
    assert (network["tcp_keepalive"]["minimum"], network["tcp_keepalive"]["maximum"]) == (0, 32767)
    assert made["$defs"]["Log"]["properties"]["level"]["enum"][0] == "off"
    assert made["$defs"]["Endpoint"]["required"] == ["listen", "remote"]
    assert "required" not in made


def test_it_is_a_fresh_one_each_time() -> None:
    schema()["properties"].clear()
    assert schema()["properties"]
    assert json.loads(as_text()) == schema()
