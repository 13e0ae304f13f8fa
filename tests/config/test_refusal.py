"""Words of a check go through pydantic unchanged."""

import pytest
from pydantic_core import PydanticCustomError

from qanat.config.refusal import refuse

__all__: list[str] = []


def test_braces_and_all() -> None:
    with pytest.raises(PydanticCustomError) as caught:
        refuse("{x} % {", "{y}", kind="not_yet", at="key")
    assert caught.value.message() == "{x} % {"
    assert caught.value.type == "not_yet"
    assert caught.value.context == {"message": "{x} % {", "hint": "{y}", "at": "key"}


def test_what_is_quoted_may_hold_anything() -> None:
    with pytest.raises(PydanticCustomError) as caught:
        refuse('"\udcd4\x1b" is wrong', "\n")
    assert caught.value.message() == '"\\udcd4\\x1b" is wrong'
    assert (caught.value.context or {})["hint"] == "\\n"
