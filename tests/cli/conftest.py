"""The program under both of its names."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qanat.cli.main import main
from tests.cli.running import Asked, Run

__all__: list[str] = []


@pytest.fixture
def qanat() -> Run:
    return Run()


@pytest.fixture
def realm(tmp_path: Path) -> Run:
    """A link to the program as it is installed."""
    script = tmp_path / "installed" / "qanat"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom qanat.cli.main import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    link = tmp_path / "realm"
    link.symlink_to(script)
    return Run([str(link)])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Stands in for the running program: remembers instead of running."""
    seen = Asked()

    def run(loaded: Any, options: dict[str, Any]) -> int:
        seen.config = loaded.config
        seen.warnings = [str(problem) for problem in loaded.warnings]
        seen.options = options
        return 0

    program = SimpleNamespace(run=run, ProgramOptions=dict)
    monkeypatch.setitem(sys.modules, "qanat.relay.program", program)
    monkeypatch.setattr("qanat.relay.program", program, raising=False)
    monkeypatch.delenv("REALM_CONF", raising=False)
    return seen


@pytest.fixture
def wrong(capsys: pytest.CaptureFixture[str], asked: Asked) -> Callable[..., str]:
    """The first line of complaint about a wrong use, which runs nothing."""

    def line(*words: str, program: str = "qanat") -> str:
        full = words if program == "realm" else ("relay", *words)
        assert main(full, program=program) == 2
        assert asked.config is None
        return capsys.readouterr().err.splitlines()[0].removeprefix(f"{program}: ")

    return line


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name has an address, and no name server is asked for one."""

    def unknown(*_args: object, **_named: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)


@pytest.fixture(autouse=True)
def all_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is tested for what it will say when the engine can do everything."""
    monkeypatch.setattr("qanat.config.unbuilt.UNBUILT", {})
