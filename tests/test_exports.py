from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import qanat

SOURCE = Path(qanat.__file__).parent

PUBLIC = {
    "Arrival",
    "BindError",
    "Certificate",
    "Check",
    "Config",
    "ConfigError",
    "ControlError",
    "Decision",
    "Dns",
    "EndedFlows",
    "Endpoint",
    "EngineClosed",
    "Flow",
    "Limits",
    "ListenTls",
    "ListenTransport",
    "Loaded",
    "Log",
    "Network",
    "Notice",
    "Problem",
    "QanatError",
    "Refuse",
    "Relay",
    "RelayStateError",
    "RemoteTls",
    "RemoteTransport",
    "Report",
    "Route",
    "RunningEndpoint",
    "Stats",
    "WebSocket",
    "__version__",
    "load",
}
"""Taking a name out of here breaks somebody's program; it needs a line in the changelog."""


def test_the_public_names_are_these() -> None:
    assert set(qanat.__all__) == PUBLIC
    assert qanat.__all__ == sorted(qanat.__all__)
    assert set(dir(qanat)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_every_public_name_exists_and_has_a_docstring(name: str) -> None:
    assert getattr(qanat, name).__doc__


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'qanat' has no attribute 'relai'"):
        qanat.relai  # noqa: B018


def test_type_checkers_see_the_names_where_they_are_loaded_from() -> None:
    """The imports for type checkers and the table for everybody else are written twice."""
    tree = ast.parse(Path(qanat.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == qanat._HOME_OF


def modules() -> list[str]:
    names = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is_and_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, "a module docstring says what the module may know"
    for exported in module.__all__:
        if exported != "__version__":
            assert hasattr(module, exported), exported
