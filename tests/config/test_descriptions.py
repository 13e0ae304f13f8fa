"""Every key has a text that users read."""

import pytest

from qanat.config.descriptions import describe, describe_field
from qanat.config.models import ALIASES, MODELS

__all__: list[str] = []


@pytest.mark.parametrize("kind", MODELS)
def test_every_key_is_described(kind: str) -> None:
    model = MODELS[kind]
    assert describe(model).endswith(".")
    for name in model.model_fields:
        text = describe_field(model, name)
        assert text.endswith(".") and "\n" not in text and len(text) > 15


def test_other_names_are_mentioned_with_the_key() -> None:
    for kind, names in ALIASES.items():
        for alias, name in names.items():
            assert f"`{alias}`" in describe_field(MODELS[kind], name)


def test_what_is_not_built_yet_is_called_so() -> None:
    for kind, names in {
        "endpoint": ("listen_transport", "remote_transport", "failover", "route", "allow", "deny"),
        "network": ("send_proxy", "accept_proxy", "max_fails", "fail_timeout"),
        "config": ("hook",),
    }.items():
        for name in names:
            assert "Not yet supported." in describe_field(MODELS[kind], name)
