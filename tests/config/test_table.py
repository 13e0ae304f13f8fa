"""What all tables have in common."""

import pytest
from pydantic import ValidationError

from qanat.config.models import TABLES, Model
from qanat.config.refusal import refuse
from qanat.errors import ConfigError

__all__: list[str] = []


@pytest.mark.parametrize("model", TABLES)
def test_a_call_tells_mistakes_as_a_file_would(model: type[Model]) -> None:
    with pytest.raises(ConfigError, match="surely_not: unknown key"):
        model(**{"surely_not": 1})


@pytest.mark.parametrize("model", TABLES)
def test_nested_validation_leaves_them_to_be_collected(model: type[Model]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate({"surely_not": 1})


def test_a_refusal_names_the_field_it_is_about() -> None:
    from pydantic import model_validator

    class Table(Model):
        key: int = 0

        @model_validator(mode="after")
        def _never(self) -> "Table":
            refuse("is {never} right", "give up", at="key")

    with pytest.raises(ConfigError) as caught:
        Table(key=5)
    assert str(caught.value) == "key = 5: is {never} right (give up)"
