"""The two halves of a plan: Python writes it, Rust reads it, and they must name the same things."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from qanat import plan as plan_module
from qanat.plan import EndpointPlan, RemotePlan, to_json

ENGINE = Path(__file__).parent.parent / "engine" / "src"
RUST = (ENGINE / "plan.rs").read_text() + (ENGINE / "desk" / "plan.rs").read_text()
PLANS: list[type[Any]] = [
    value for name, value in vars(plan_module).items() if name.endswith("Plan")
]
WORDS = [
    "AcceptProxy",
    "Balance",
    "CheckKind",
    "DnsMode",
    "DnsProtocol",
    "Mask",
    "OnFailure",
    "RuleKind",
]
"""Enums in Rust, literals in Python."""
NUMBERS = {"u8": int, "u16": int, "u32": int, "u64": int, "f64": float}
REMOTE = RemotePlan(host="h", port=1)


def rust_fields(struct: str) -> dict[str, str]:
    found = re.search(rf"pub struct {struct} \{{(.*?)\n\}}", RUST, re.DOTALL)
    assert found, f"plan.rs has no {struct}"
    return dict(re.findall(r"pub (\w+): ([^,\n]+),", found[1]))


def rust_defaults(struct: str) -> dict[str, Any]:
    found = re.search(rf"impl Default for {struct} \{{.*?Self \{{(.*?)\}}", RUST, re.DOTALL)
    if found is None:
        assert re.search(rf"derive\([^)]*\bDefault\b[^)]*\)\]\s(#.*\s)*pub struct {struct} ", RUST)
        return {name: rust_zero(kind) for name, kind in rust_fields(struct).items()}
    return {name: rust_value(text) for name, text in re.findall(r"(\w+): ([^,\s]+)", found[1])}


def rust_zero(kind: str) -> object:
    if kind in NUMBERS:
        return NUMBERS[kind](0)
    if kind.startswith("Option<"):
        return None
    if kind.startswith("Vec<"):
        return ()
    return False if kind == "bool" else rust_words(kind)[1]


def rust_value(text: str) -> object:
    words = {"true": True, "false": False, "Vec::new()": (), "String::new()": "", "None": None}
    if text in words:
        return words[text]
    if text.endswith(".to_owned()"):
        return json.loads(text.removesuffix(".to_owned()"))
    if text.endswith("::default()"):
        return rust_words(text.removesuffix("::default()"))[1]
    return json.loads(text.replace("_", ""))


def rust_words(enum: str) -> tuple[list[str], str]:
    """The words of an enum as they are written in a plan, and which is the default."""
    found = re.search(rf"pub enum {enum} \{{(.*?)\n\}}", RUST, re.DOTALL)
    assert found, f"plan.rs has no {enum}"
    variants = re.findall(r"(#\[default\]\s+)?(\w+),", found[1])
    snake = [re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower() for _, name in variants]
    (default,) = [word for word, (mark, _) in zip(snake, variants, strict=True) if mark]
    return snake, default


def rust_type(hint: object) -> set[str]:
    """The Rust types that can hold what a Python field may hold."""
    if isinstance(hint, UnionType):
        (inner,) = [part for part in get_args(hint) if part is not NoneType]
        return {f"Option<{kind}>" for kind in rust_type(inner)}
    if get_origin(hint) is tuple:
        return {f"Vec<{kind}>" for kind in rust_type(get_args(hint)[0])}
    if get_origin(hint) is Literal:
        if hint == plan_module.ProxyVersion:
            return {"u8"}
        return {name for name in WORDS if getattr(plan_module, name) == hint}
    if hint is int:
        return {"u16", "u32", "u64"}
    return {{str: "String", bool: "bool", float: "f64"}.get(hint) or hint.__name__}  # type: ignore[call-overload, attr-defined]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.__name__)
def test_both_halves_have_the_same_fields_of_the_same_types(plan: type) -> None:
    hints = get_type_hints(plan)
    rust = rust_fields(plan.__name__)
    assert list(hints) == list(rust)
    for name, hint in hints.items():
        assert rust[name] in rust_type(hint), name


def is_optional(plan: type[Any]) -> bool:
    """Whether every field has a default."""
    missing = dataclasses.MISSING
    return all(
        entry.default is not missing or entry.default_factory is not missing
        for entry in dataclasses.fields(plan)
    )


@pytest.mark.parametrize(
    "plan", [plan for plan in PLANS if is_optional(plan)], ids=lambda plan: plan.__name__
)
def test_both_halves_have_the_same_defaults(plan: type[Any]) -> None:
    assert dataclasses.asdict(plan()) == rust_defaults(plan.__name__)


@pytest.mark.parametrize("enum", WORDS)
def test_both_halves_know_the_same_words(enum: str) -> None:
    assert set(get_args(getattr(plan_module, enum))) == set(rust_words(enum)[0])


def test_rust_refuses_fields_that_it_does_not_know() -> None:
    structs = re.findall(r"#\[serde\(([^]]*)\)\]\npub struct (\w+)", RUST)
    assert {name for _, name in structs} == {plan.__name__ for plan in PLANS}
    assert all("deny_unknown_fields" in attributes for attributes, _ in structs)


def test_a_plan_is_json_with_every_name() -> None:
    plan = EndpointPlan(id="x", listen="1.2.3.4:80", remotes=(REMOTE,))
    written = json.loads(to_json(plan))
    assert list(written) == [entry.name for entry in dataclasses.fields(EndpointPlan)]
    assert written["remotes"] == [{"host": "h", "port": 1}]
    assert written["tcp"]["linger"] == 30.0
    assert written["udp"] is None


def test_plans_are_frozen_and_comparable() -> None:
    one = EndpointPlan(id="x", listen="1.2.3.4:80", remotes=(REMOTE,))
    assert one == EndpointPlan(id="x", listen="1.2.3.4:80", remotes=(RemotePlan(host="h", port=1),))
    assert len({one, dataclasses.replace(one)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.id = "y"  # type: ignore[misc]
