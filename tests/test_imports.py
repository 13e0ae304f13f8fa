"""Who may know whom, and what it costs to load."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import qanat

SOURCE = Path(qanat.__file__).parent


def sources() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports anywhere, also late and for type checkers."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("qanat"))
        elif isinstance(node, ast.ImportFrom):
            home = node.module or ""
            if node.level:
                package = path.relative_to(SOURCE.parent).parts[: -node.level]
                home = ".".join((*package, *filter(None, [node.module])))
            if home.split(".")[0] == "qanat":
                yield from (_deepest(f"{home}.{alias.name}") for alias in node.names)


def _deepest(name: str) -> str:
    """The module of a name that may be one itself or something within one."""
    path = SOURCE.parent / Path(*name.split("."))
    is_module = path.with_suffix(".py").exists() or path.with_suffix(".pyi").exists()
    return name if is_module or path.is_dir() else name.rpartition(".")[0]


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


MAY_KNOW = {
    "cli": {
        "",
        "cli",
        "config",
        "observe",
        "process",
        "proxy",
        "relay",
        "plan",
        "errors",
        "_engine",
    },
    "relay": {"", "config", "engine", "observe", "process", "relay", "plan", "errors", "_engine"},
    "proxy": {"", "config", "engine", "observe", "process", "proxy", "stack", "plan", "errors"},
    "stack": {"engine", "observe", "stack", "plan", "errors", "_engine"},
    "engine": {"plan", "errors", "_engine"},
    "process": {"config", "observe", "process", "errors"},
    "observe": {"config", "observe", "errors"},
    "config": {"config", "errors"},
    "plan": set(),
    "errors": set(),
    "__main__": {"cli"},
    "": {"config", "observe", "relay", "errors"},
}
"""By room: a package, or a module at the top; "" is ``qanat`` itself."""


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_imports_go_downwards_only(path: Path) -> None:
    room = room_of(module_of(path))
    assert room in MAY_KNOW, f"a new room: say in this test whom {room} may know"
    for name in imported(path):
        assert room_of(name) in MAY_KNOW[room], f"{module_of(path)} must not import {name}"


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_programs_know_the_native_engine_through_one_module(path: Path) -> None:
    if room_of(module_of(path)) in ("relay", "proxy"):
        assert "qanat._engine" not in set(imported(path))


def loaded_by(statement: str) -> set[str]:
    program = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_next_to_nothing() -> None:
    more = loaded_by("import qanat") - loaded_by("pass")
    assert {name for name in more if name.startswith("qanat")} == {"qanat"}
    assert not more & {"pydantic", "click", "asyncio", "qanat._engine"}


def test_errors_and_plans_load_nothing_else_of_ours() -> None:
    loaded = loaded_by("import qanat.errors, qanat.plan")
    ours = {name for name in loaded if name.startswith("qanat")}
    assert ours == {"qanat", "qanat.errors", "qanat.plan"}


def test_comparing_plans_needs_no_engine() -> None:
    loaded = loaded_by("import qanat.relay.planning, qanat.relay.difference")
    assert "qanat._engine" not in loaded
    assert "qanat.relay.relay" not in loaded


def test_importing_the_package_is_fast() -> None:
    """At most 60 ms; it takes about one, so that this fails for a reason and not by chance."""
    program = (
        "import time; before = time.perf_counter(); import qanat; "
        "print(time.perf_counter() - before)"
    )
    times = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        times.append(float(done.stdout))
    assert min(times) < 0.06
