"""docs/dependencies.md gives a reason for each dependency, and for nothing else."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT
from tools.requirements import requirements

__all__: list[str] = []

PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")


def rows(heading: str) -> set[str]:
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| ([\w-]+) \| .+\.? \|$", section, re.MULTILINE)
    return set(found) - {"Package", "Crate"}


def toml(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text(encoding="utf-8"))


def names(wanted: str) -> set[str]:
    found = requirements(toml("pyproject.toml"), wanted)
    return {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in found}


def crates(path: str) -> set[str]:
    manifest = toml(path)
    sections = ("dependencies", "dev-dependencies", "build-dependencies")
    return {name for section in sections for name in manifest.get(section, {})}


def test_python_at_run_time() -> None:
    assert rows("Python, at run time") == names("runtime")


def test_python_for_developers() -> None:
    assert rows("Python, for working on it") == names("dev")


def test_rust() -> None:
    members = toml("Cargo.toml")["workspace"]["members"]
    used = set().union(*(crates(f"{member}/Cargo.toml") for member in members))
    used -= {"qanat-engine"}
    assert rows("Rust") == used


def test_requirements_of_groups_include_each_other() -> None:
    project = {
        "project": {"dependencies": ["a>=1"]},
        "dependency-groups": {"x": ["b"], "y": [{"include-group": "x"}, "c"]},
    }
    assert list(requirements(project, "runtime")) == ["a>=1"]
    assert list(requirements(project, "y")) == ["b", "c"]


@pytest.mark.parametrize("name", sorted(names("runtime")))
def test_run_time_dependencies_are_used(name: str) -> None:
    module = {"prometheus-client": "prometheus_client", "pyyaml": "yaml"}.get(name, name)
    pattern = re.compile(rf"^\s*(import|from) {module}\b", re.MULTILINE)
    sources = (ROOT / "src").rglob("*.py")
    assert any(pattern.search(path.read_text(encoding="utf-8")) for path in sources)


def test_the_readme_names_the_oldest_python() -> None:
    oldest = toml("pyproject.toml")["project"]["requires-python"].removeprefix(">=")
    assert f"Python {oldest}" in " ".join((ROOT / "README.md").read_text().split())
    assert sys.version_info >= tuple(map(int, oldest.split(".")))


def test_pages_name_the_oldest_rust() -> None:
    oldest = toml("Cargo.toml")["workspace"]["package"]["rust-version"]
    assert f"Rust {oldest}" in Path(ROOT / "docs" / "getting-started.md").read_text()
