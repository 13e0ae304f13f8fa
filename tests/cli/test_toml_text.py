"""What is written as TOML is read back the same."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.cli.toml_text import to_toml

keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(keys, values, max_size=4))
def test_round_trip(document: dict[str, object]) -> None:
    assert tomllib.loads(to_toml(document)) == document


def test_endpoints_are_tables_of_their_own() -> None:
    document = {
        "endpoints": [
            {"listen": "0.0.0.0:1", "remote": "a:1", "network": {"use_udp": True}},
            {"listen": "0.0.0.0:2", "remote": "b:2"},
        ],
        "workers": 2,
    }
    assert to_toml(document) == (
        "workers = 2\n"
        "\n"
        "[[endpoints]]\n"
        'listen = "0.0.0.0:1"\n'
        'remote = "a:1"\n'
        "\n"
        "[endpoints.network]\n"
        "use_udp = true\n"
        "\n"
        "[[endpoints]]\n"
        'listen = "0.0.0.0:2"\n'
        'remote = "b:2"\n'
    )


def test_none_is_left_out() -> None:
    assert to_toml({"a": None, "b": 1}) == "b = 1\n"


def test_an_empty_document_is_empty() -> None:
    assert to_toml({}) == ""


def test_foreign_values_are_refused() -> None:
    with pytest.raises(TypeError, match="no form"):
        to_toml({"a": object()})
