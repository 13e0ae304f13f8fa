"""Write docs/reference.md: the public names of qanat.stack and qanat.proxy, from their docstrings.

python tools/reference.py [FILE]

Reads the sources and imports nothing: what stands on the page is what stands there.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

__all__ = ["SECTIONS", "page", "public"]

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "src" / "qanat"
SECTIONS = {
    "Services and servers": ("stack.service", "stack.server", "stack.workers", "stack.bridge"),
    "What is known of a connection": ("stack.extensions", "stack.facts", "stack.address"),
    "Streams": ("stack.stream", "stack.relaying"),
    "Connectors and their layers": ("stack.connect",),
    "Layers": ("stack.layers", "stack.bucket"),
    "TLS": ("stack.tls",),
    "Leaves": ("stack.leaves",),
    "Choosing": ("stack.peek", "stack.match", "stack.domains"),
    "Messages": ("stack.codec",),
    "Errors": ("stack.errors",),
    "Proxies": ("proxy",),
}
"""Titles, and the modules whose names belong there."""
_WIDTH = 88
_HIDDEN = ("self", "cls")


def public() -> Iterator[tuple[str, str]]:
    """Each name with its module, without ``qanat.``."""
    for package in ("stack", "proxy"):
        tree = ast.parse((SOURCES / package / "__init__.py").read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
                for home, names in ast.literal_eval(node.value).items():
                    yield from ((name, f"{package}.{home}") for name in names)


def page() -> str:
    names = sorted(public(), key=lambda one: one[0].lower())
    parts = [
        "# Reference",
        "<!-- Made of the docstrings by `python tools/reference.py docs/reference.md`. -->",
        "Every public name of `qanat.stack` and `qanat.proxy`; [here](framework.md) is a tutorial.",
    ]
    for title, homes in SECTIONS.items():
        parts.append(f"## {title}")
        for name, home in names:
            if _belongs(home, homes):
                parts += _entry(name, home)
    return "\n\n".join(parts) + "\n"


def _belongs(home: str, homes: tuple[str, ...]) -> bool:
    return any(home == one or home.startswith(f"{one}.") for one in homes)


def _entry(name: str, home: str) -> Iterator[str]:
    package = home.partition(".")[0]
    yield f"### `{name}`"
    path = SOURCES.joinpath(*home.split("."))
    source = path.with_suffix(".py") if not path.is_dir() else path / "__init__.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    body, at = _found(tree.body, name), 0
    if body is None:
        # A package whose names live in modules of their own.
        for module in sorted(path.glob("*.py")):
            tree = ast.parse(module.read_text(encoding="utf-8"))
            body = _found(tree.body, name)
            if body is not None:
                break
    if body is None:
        raise LookupError(f"{name} is not in qanat.{home}")
    nodes, at = body
    node = nodes[at]
    yield f"`from qanat.{package} import {name}`"
    if isinstance(node, ast.ClassDef):
        yield from _class(node)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        overloads = [
            one
            for one in nodes
            if isinstance(one, ast.FunctionDef) and one.name == name and _is(one, "overload")
        ]
        yield _code(_signature(node if not overloads else overloads[-1], name))
        yield from _text(ast.get_docstring(node))
    else:
        yield from _text(_behind(nodes, at))


def _found(nodes: list[ast.stmt], name: str) -> tuple[list[ast.stmt], int] | None:
    found = None
    for at, node in enumerate(nodes):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name == name:
                found = (nodes, at)
            continue
        if any(isinstance(one, ast.Name) and one.id == name for one in targets):
            found = (nodes, at)
    return found


def _is(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, decorator: str) -> bool:
    return any(ast.unparse(one).partition("(")[0] == decorator for one in node.decorator_list)


def _class(node: ast.ClassDef) -> Iterator[str]:
    made = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    fields = [
        (at, one)
        for at, one in enumerate(node.body)
        if isinstance(one, ast.AnnAssign)
        and isinstance(one.target, ast.Name)
        and not one.target.id.startswith("_")
    ]
    if made:
        yield _code(_signature(made[0], node.name))
    elif _is(node, "dataclass"):
        yield _code(_call(node.name, [_field(one) for _, one in fields], ""))
    bases = [ast.unparse(base) for base in node.bases]
    shown = [base for base in bases if base.partition("[")[0] not in ("Generic", "Protocol", "ABC")]
    if shown:
        yield f"A kind of {', '.join(f'`{base}`' for base in shown)}."
    yield from _text(ast.get_docstring(node))
    rows = []
    for at, one in fields:
        told = _behind(node.body, at)
        if told:
            rows.append(f"* `{ast.unparse(one.target)}`: {_inline(told)}")
    for one in node.body:
        if (
            isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            and not one.name.startswith("_")
            and not _is(one, "overload")
            and (told := ast.get_docstring(one))
        ):
            shown_as = one.name if _is(one, "property") else _line(one)
            rows.append(f"* `{shown_as}`: {_inline(told)}")
    if rows:
        yield "\n".join(rows)


def _line(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    names = [one for one in _arguments(node, types=False) if one not in ("/", "*")]
    word = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{word}{node.name}({', '.join(names)})"


def _field(node: ast.AnnAssign) -> str:
    text = f"{ast.unparse(node.target)}: {ast.unparse(node.annotation)}"
    if node.value is None:
        return text
    value = ast.unparse(node.value)
    return f"{text} = {'...' if value.startswith('field(') else value}"


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> str:
    result = "" if node.returns is None or node.name == "__init__" else ast.unparse(node.returns)
    word = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
    return word + _call(name, _arguments(node, types=True), f" -> {result}" if result else "")


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef, *, types: bool) -> list[str]:
    told: list[str] = []
    given = node.args
    places = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(places) - len(given.defaults))
    for one, default in zip(places, [*defaults, *given.defaults], strict=True):
        if one.arg not in _HIDDEN:
            told.append(_argument(one, default, types=types))
        if given.posonlyargs and one is given.posonlyargs[-1] and told:
            told.append("/")
    if given.vararg is not None:
        told.append("*" + _argument(given.vararg, None, types=types))
    elif given.kwonlyargs:
        told.append("*")
    for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        told.append(_argument(one, default, types=types))
    return told


def _argument(one: ast.arg, default: ast.expr | None, *, types: bool) -> str:
    text = one.arg
    if types and one.annotation is not None:
        text += f": {ast.unparse(one.annotation)}"
    if types and default is not None:
        text += f" = {ast.unparse(default)}"
    return text


def _call(name: str, arguments: list[str], result: str) -> str:
    line = f"{name}({', '.join(arguments)}){result}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {one}," for one in arguments), f"){result}"]).replace(
        "    *,,", "    *,"
    )


def _code(text: str) -> str:
    return f"```\n{text}\n```"


def _behind(nodes: list[ast.stmt], at: int) -> str | None:
    """The text right behind an assignment."""
    if at + 1 < len(nodes):
        node = nodes[at + 1]
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            value = node.value.value
            return dedent(value) if isinstance(value, str) else None
    return None


def _text(told: str | None) -> Iterator[str]:
    """Paragraphs as Markdown; what is indented behind two colons is code."""
    if told is None:
        return
    expects_code = False
    for part in re.split(r"\n\s*\n", told.strip("\n")):
        if expects_code and part.startswith(" "):
            yield _code(dedent(part))
            continue
        expects_code = part.rstrip().endswith("::")
        text = part.rstrip().removesuffix("::").rstrip()
        if text:
            yield _inline(text) + (":" if expects_code else "")


def _inline(text: str) -> str:
    text = " ".join(text.split())
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    text = re.sub(r":raises ([\w, ]+): ", r"Raises \1: ", text)
    return text.replace("``", "`")


if __name__ == "__main__":
    written = page()
    if sys.argv[1:]:
        Path(sys.argv[1]).write_text(written, encoding="utf-8")
    else:
        sys.stdout.write(written)
