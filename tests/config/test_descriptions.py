"""Every key has a text that users read."""

import pytest

from qanat.config.descriptions import describe, describe_field
from qanat.config.models import ALIASES, MODELS, TABLES, Model

__all__: list[str] = []


@pytest.mark.parametrize("model", TABLES)
def test_every_key_is_described(model: type[Model]) -> None:
    assert describe(model).endswith(".")
    for name in model.model_fields:
        text = describe_field(model, name)
        assert text.endswith(".") and "\n" not in text and len(text) > 15


def test_other_names_are_mentioned_with_the_key() -> None:
    for kind, names in ALIASES.items():
        for alias, name in names.items():
            assert f"`{alias}`" in describe_field(MODELS[kind], name)
