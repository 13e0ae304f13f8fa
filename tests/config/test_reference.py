"""The page in the repository is that of the models, and what stands in it is true."""

import re
from pathlib import Path

import pytest

from qanat.config.address import parse_listen, parse_nameserver, parse_remote, parse_through
from qanat.config.load import load
from qanat.config.models import TABLES
from qanat.config.reference import reference
from qanat.config.transport_options import LISTEN, REMOTE, Side

__all__: list[str] = []

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
PARSERS = {
    "listen": parse_listen,
    "remote": parse_remote,
    "through": parse_through,
    "nameservers": parse_nameserver,
}


def addresses() -> list[tuple[str, str]]:
    """The rows of the table of addresses: a key, and a text that it is said to accept."""
    rows, key = [], ""
    section = reference().partition("## Addresses")[2].partition("## Transports")[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 3 or cells[0] in ("where", "---"):
            continue
        key = cells[0].strip("`") or key
        rows += [(key, text) for text in re.findall(r"`([^`]+)`", cells[1])]
    return rows


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "run: python -m qanat.config.reference docs/configuration.md"
    )


def test_every_key_has_a_row() -> None:
    text = reference()
    for model in TABLES:
        for name in model.model_fields.keys() - {"log", "dns", "network", "limits", "endpoints"}:
            assert f"| `{name}` |" in text


@pytest.mark.parametrize(("key", "text"), addresses())
def test_every_address_on_the_page_is_one(key: str, text: str) -> None:
    assert PARSERS[key](text)


def test_there_are_addresses_on_the_page() -> None:
    assert len(addresses()) > 20


def test_every_example_on_the_page_loads() -> None:
    examples = re.findall(r"```toml\n(.*?)```", reference(), re.DOTALL)
    assert len(examples) == 5
    for example in examples:
        loaded = load(text=example)
        assert loaded.warnings == []
        assert loaded.config.endpoints


def test_both_forms_of_a_transport_mean_the_same() -> None:
    *_, text, table = re.findall(r"```toml\n(.*?)```", reference(), re.DOTALL)
    wrapped = [load(text=example).config.endpoints[0].listen_wrapping for example in (text, table)]
    assert wrapped[0] == wrapped[1] is not None


@pytest.mark.parametrize(
    ("side", "known"), [("listen_transport", LISTEN), ("remote_transport", REMOTE)]
)
def test_every_word_of_a_transport_is_on_the_page(side: str, known: Side) -> None:
    section = reference().partition("## Transports")[2].partition("## Amounts")[0]
    rows = re.findall(rf"^\| (?:both|`{side}`) \|(.*)", section, re.MULTILINE)
    words = {word.partition("=")[0] for row in rows for word in re.findall(r"`([^`]+)`", row)}
    assert words - {"zero", "random"} == {*known.words, *known.keys}
