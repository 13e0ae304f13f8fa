"""tools/machine and tools/python on machines that lack something, made of a PATH of our own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

__all__: list[str] = []

TOOLS = "sh sed grep tr dirname uname sort head stat realpath cat env readlink"


class Machine:
    """A PATH with plain tools, and whatever a test adds."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.home = folder / "home"
        self.bin.mkdir()
        self.home.mkdir()
        for name in TOOLS.split():
            found = shutil.which(name)
            assert found is not None, name
            (self.bin / name).symlink_to(found)
        self.add("id", "case $1 in -u) echo 1000 ;; *) echo someone ;; esac")
        self.add("cc", "exit 0")
        self.add("cargo", "echo 'cargo 1.95.0 (f2d3ce0bd 2026-03-21)'")

    def add(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def without(self, name: str) -> None:
        (self.bin / name).unlink()

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", *words],
            cwd=ROOT,
            env={"PATH": str(self.bin), "HOME": str(self.home), "PYTHON": sys.executable}
            | variables,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_complete_machine_is_told_nothing(machine: Machine) -> None:
    run = machine.run("tools/machine")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_rust_is_missing(machine: Machine) -> None:
    machine.without("cargo")
    run = machine.run("tools/machine")
    assert run.returncode == 1
    assert "Rust 1.88 or newer" in run.stderr
    assert "rustup.rs" in run.stderr


def test_rust_is_there_but_not_on_the_path(machine: Machine) -> None:
    machine.without("cargo")
    cargo = machine.home / ".cargo/bin/cargo"
    cargo.parent.mkdir(parents=True)
    cargo.write_text("#!/bin/sh\n")
    cargo.chmod(0o755)
    run = machine.run("tools/machine")
    assert f". {machine.home}/.cargo/env" in run.stderr


@pytest.mark.parametrize(
    ("version", "enough"), [("1.75.0", False), ("1.9.0", False), ("1.88.0", True)]
)
def test_the_age_of_rust(machine: Machine, version: str, enough: bool) -> None:
    machine.add("cargo", f"echo 'cargo {version} (0123abc 2026-01-01)'")
    run = machine.run("tools/machine")
    assert (run.returncode == 0) is enough
    if not enough:
        assert f"this is {version.rpartition('.')[0]}; with rustup run: rustup update" in run.stderr


@pytest.mark.parametrize(
    ("user", "sudo", "advice"),
    [
        ("0", False, "apt-get update && apt-get install -y gcc libc6-dev"),
        ("1000", True, "sudo apt-get update && sudo apt-get install -y gcc libc6-dev"),
        ("1000", False, "Installing needs root. Ask whoever has it"),
    ],
    ids=["root", "plain user with sudo", "plain user"],
)
def test_a_compiler_is_missing(machine: Machine, user: str, sudo: bool, advice: str) -> None:
    machine.without("cc")
    machine.add("id", f"echo {user}")
    machine.add("apt-get", "exit 99")
    if sudo:
        machine.add("sudo", "exit 99")
    run = machine.run("tools/machine")
    assert run.returncode == 1
    assert "a C compiler (cc)" in run.stderr
    assert advice in run.stderr


def test_another_distribution_is_told_names_only(machine: Machine) -> None:
    machine.without("cc")
    run = machine.run("tools/machine")
    assert "your distribution's package manager" in run.stderr
    assert "gcc libc6-dev" in run.stderr


def test_a_shim_that_does_not_run_is_passed_over(machine: Machine) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    machine.add(f"python{version}", "echo 'not active here' >&2; exit 127")
    machine.add("python3", f'exec {sys.executable} "$@"')
    run = machine.run("tools/python", version, PYTHON="")
    assert run.returncode == 0
    assert os.access(run.stdout.strip(), os.X_OK)
    assert str(machine.bin) not in run.stdout


def test_a_python_that_is_nowhere(machine: Machine) -> None:
    run = machine.run("tools/python", "3.99")
    assert (run.returncode, run.stdout) == (1, "")
    assert "no Python 3.99 that can make virtual environments" in run.stderr


def test_make_alone_lists_the_targets() -> None:
    run = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
    for target in ("run", "test", "bench", "lint", "format", "fuzz", "soak", "wheel", "clean"):
        assert f"\n  {target} " in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 100
