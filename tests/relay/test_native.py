"""The native engine keeps to its stub, so that what type checkers see is what there is."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import qanat
from qanat import _engine
from qanat.plan import EndpointPlan, LimitsPlan, RemotePlan, UdpPlan, to_json

STUB = ast.parse((Path(qanat.__file__).parent / "_engine.pyi").read_text())


def functions(body: list[ast.stmt]) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def stub(name: str) -> dict[str, ast.FunctionDef]:
    (found,) = [node for node in STUB.body if isinstance(node, ast.ClassDef) and node.name == name]
    return functions(found.body)


CLASSES = {name: stub(name) for name in ("Desk", "Engine")}
METHODS = [
    (owner, method)
    for owner, methods in CLASSES.items()
    for method in sorted(set(methods) - {"workers", "__init__"})
]


def parameters(function: ast.FunctionDef) -> list[tuple[str, Any]]:
    names = [argument.arg for argument in function.args.args]
    defaults = [ast.literal_eval(value) for value in function.args.defaults]
    padded = [inspect.Parameter.empty] * (len(names) - len(defaults)) + defaults
    return [pair for pair in zip(names, padded, strict=True) if pair[0] != "self"]


@pytest.fixture
def engine() -> Iterator[_engine.Engine]:
    made = _engine.Engine(workers=1)
    yield made
    made.shutdown()


def test_the_module_has_what_the_stub_names() -> None:
    public = {name for name in dir(_engine) if not name.startswith("_")}
    assert public == {*CLASSES, "EngineError", *functions(STUB.body)}
    assert isinstance(_engine.__version__, str)
    assert qanat.__version__ == _engine.__version__


@pytest.mark.parametrize("owner", CLASSES)
def test_a_class_has_the_methods_of_the_stub(owner: str) -> None:
    public = {name for name in dir(getattr(_engine, owner)) if not name.startswith("_")}
    assert public == set(CLASSES[owner]) - {"__init__"}


@pytest.mark.parametrize(("owner", "name"), METHODS)
def test_the_parameters_are_those_of_the_stub(owner: str, name: str) -> None:
    native = inspect.signature(getattr(getattr(_engine, owner), name))
    found = [one for one in native.parameters.values() if one.name != "self"]
    wanted = parameters(CLASSES[owner][name])
    assert [one.name for one in found] == [parameter for parameter, _ in wanted]
    for one, (_, default) in zip(found, wanted, strict=True):
        # Defaults that are no plain words or numbers are shown as an ellipsis.
        assert one.default == default or (one.default is ... and default is not one.empty)


def test_it_says_what_it_is_and_what_this_kernel_can() -> None:
    assert {"version", "profile", "target", "features"} <= set(json.loads(_engine.build_info()))
    abilities = json.loads(_engine.abilities())
    wanted = {"mptcp", "splice", "pipe_max", "udp_gso", "udp_gro", "reuseport", "bindtodevice"}
    assert wanted <= set(abilities)


def test_errors_have_a_code_and_the_errno_of_the_kernel(engine: _engine.Engine) -> None:
    group = engine.open_group(to_json(LimitsPlan()))
    foreign = EndpointPlan(
        id="x", listen="192.0.2.1:80", remotes=(RemotePlan(host="h", port=1),), udp=UdpPlan()
    )
    with pytest.raises(_engine.EngineError) as caught:
        engine.bind(group, to_json(foreign))
    assert (caught.value.code, caught.value.errno) == ("bind", 99)
    with pytest.raises(_engine.EngineError) as caught:
        engine.bind(group, '{"id": "x", "novelty": 1}')
    assert (caught.value.code, caught.value.errno) == ("plan", None)


def test_after_shutdown_everything_says_closed(engine: _engine.Engine) -> None:
    group = engine.open_group(to_json(LimitsPlan()))
    engine.shutdown()
    engine.shutdown()
    for call in (
        lambda: engine.open_group(to_json(LimitsPlan())),
        lambda: engine.flows(group),
        lambda: engine.next_events(0.0),
    ):
        with pytest.raises(_engine.EngineError) as caught:
            call()
        assert caught.value.code == "closed"


def test_waiting_for_events_ends_when_time_is_over(engine: _engine.Engine) -> None:
    assert engine.next_events(0.01) == []
