"""The texts under the fields of the models, read from the models' source.

Only the reference and the schema need them, so a program that starts does not pay for them. No I/O
beyond the package's own source.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache

from qanat.config.table import Model

__all__ = ["describe", "describe_field"]


def describe(model: type[Model]) -> str:
    """What a table is for, in one paragraph."""
    return _one_line(inspect.getdoc(model) or "")


def describe_field(model: type[Model], name: str) -> str:
    """What a key does, in one paragraph."""
    return _texts(model.__module__)[model.__name__][name]


@cache
def _texts(module: str) -> dict[str, dict[str, str]]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: _fields(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _fields(node: ast.ClassDef) -> dict[str, str]:
    texts = {}
    for statement, following in zip(node.body, node.body[1:], strict=False):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            texts[statement.target.id] = _one_line(str(following.value.value))
    return texts


def _one_line(text: str) -> str:
    return " ".join(text.split())
