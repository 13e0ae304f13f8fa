"""What the framework's face costs to load, and that every name of it is there."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time

import pytest

__all__: list[str] = []

_HEAVY = {"ssl", "pydantic", "click", "h11", "qanat._engine"}


def loaded_by(statement: str) -> tuple[set[str], float]:
    program = (
        f"import sys, json, time\nbegan = time.process_time()\n{statement}\n"
        "print(json.dumps([sorted(sys.modules), time.process_time() - began]))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    names, seconds = json.loads(run.stdout)
    return set(names), seconds


def test_it_costs_next_to_nothing_and_stays_within_the_standard_library() -> None:
    began = time.monotonic()
    best = 1.0
    while best > 0.08 and time.monotonic() < began + 20:
        names, seconds = loaded_by("import qanat.stack")
        best = min(best, seconds)
        assert not names & _HEAVY
    assert best <= 0.08


def test_a_server_that_relays_needs_no_more_than_the_standard_library_and_the_engine() -> None:
    names, _ = loaded_by("from qanat.stack import Forward, Relay, TcpConnector, open_server")
    assert not names & (_HEAVY - {"ssl"})


@pytest.mark.parametrize("package", ["qanat.stack", "qanat.proxy"])
def test_every_public_name_exists(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(set(module.__all__))
    assert set(dir(module)) >= set(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None, name
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018
