from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qanat.errors import ConfigError
from qanat.plan import EndpointPlan, HookPlan, RemotePlan
from qanat.relay.hooks import NO_HOOKS, Hook, Hooks, load_hooks


def plans(*calls: str) -> list[EndpointPlan]:
    return [
        EndpointPlan(
            id=f"e{number}",
            listen="127.0.0.1:0",
            remotes=(RemotePlan(host="h", port=1),),
            hook=HookPlan(call=call),
        )
        for number, call in enumerate(calls)
    ]


def one(call: str, former: Hooks = NO_HOOKS) -> Hook:
    return load_hooks(plans(call), former).by_call[call]


def refusal(*calls: str, former: Hooks = NO_HOOKS) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_hooks(plans(*calls), former)
    return [problem.message for problem in caught.value.problems]


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.py"
    path.write_text("def decide(arrival): return 1\nasync def later(arrival): return 2\n")
    return path


def test_without_hooks_nothing_is_loaded() -> None:
    bare = EndpointPlan(id="x", listen="127.0.0.1:0", remotes=())
    hooks = load_hooks([bare])
    assert not hooks
    assert hooks.by_call == {}


def test_a_file_is_run_once_for_all_its_functions(file: Path) -> None:
    with file.open("a") as more:
        more.write("class Rules:\n    seen = 0\n    @staticmethod\n    def on(a): return 3\n")
    calls = [f"{file}:decide", f"{file}:later", f"{file}:Rules.on", f"{file}:decide"]
    hooks = load_hooks(plans(*calls))
    plain, later, inner = (hooks.by_call[call] for call in calls[:3])
    assert (plain.waits, later.waits, inner.waits) == (False, True, False)
    assert plain.function(None) == 1
    assert inner.function(None) == 3
    assert plain.function.__globals__ is later.function.__globals__
    assert "rules" not in sys.modules, "a file has no name that others could import by chance"


def test_a_module_is_the_one_that_the_program_has(file: Path) -> None:
    import rules  # type: ignore[import-not-found]

    assert one("rules:decide").function is rules.decide


def test_a_function_may_be_anything_that_can_be_called(file: Path) -> None:
    file.write_text(
        "import functools\n"
        "class Slow:\n    async def __call__(self, arrival): ...\n"
        "class Quick:\n    def __call__(self, arrival, more=1): ...\n"
        "slow, quick = Slow(), Quick()\n"
        "async def two(a, b): ...\n"
        "bound = functools.partial(two, 1)\n"
    )
    waits = {name: one(f"{file}:{name}").waits for name in ("slow", "quick", "bound")}
    assert waits == {"slow": True, "quick": False, "bound": True}


def test_what_can_not_be_loaded_is_refused_with_the_reason(file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("ok = 1\nraise RuntimeError('no table')\n")
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def decide(:\n")
    leaves = tmp_path / "leaves.py"
    leaves.write_text("raise SystemExit(3)\n")
    with file.open("a") as more:
        more.write("number = 7\ndef none(): ...\ndef two(a, b): ...\n")
    assert refusal(
        f"{file}:missing",
        f"{file}:number",
        f"{file}:none",
        f"{file}:two",
        f"{broken}:decide",
        f"{wrong}:decide",
        f"{leaves}:decide",
        f"{tmp_path}/gone.py:decide",
        "no_such_module:decide",
        "broken:decide",
    ) == [
        f"endpoint e0: there is no missing in {file}",
        "endpoint e1: number is not a function",
        "endpoint e2: none can't be called with an Arrival alone: too many positional arguments",
        "endpoint e3: two can't be called with an Arrival alone: missing a required argument: 'b'",
        "endpoint e4: can't be loaded: RuntimeError: no table (line 2)",
        "endpoint e5: can't be loaded: SyntaxError: invalid syntax (wrong.py, line 1)",
        "endpoint e6: can't be loaded: SystemExit: 3 (line 1)",
        f"endpoint e7: {tmp_path}/gone.py can't be read: No such file or directory",
        "endpoint e8: can't be loaded: ModuleNotFoundError: No module named 'no_such_module'",
        "endpoint e9: can't be loaded: RuntimeError: no table",
    ]
    ours = [name for name in sys.modules if name.startswith("qanat_hook_")]
    assert not [name for name in ours if name.endswith(("_broken", "_wrong", "_leaves"))]


def test_the_problem_names_the_key_and_the_value(file: Path) -> None:
    call = f"{file}:missing"
    with pytest.raises(ConfigError) as caught:
        load_hooks(plans(call))
    (problem,) = caught.value.problems
    assert (problem.key, problem.value) == ("hook", call)


@pytest.mark.parametrize("kind", ["file", "module"])
def test_changed_content_is_loaded_anew_and_the_same_is_kept(file: Path, kind: str) -> None:
    call = f"{file}:decide" if kind == "file" else "rules:decide"
    first = load_hooks(plans(call))
    again = load_hooks(plans(call), first)
    assert again.by_call[call] is first.by_call[call]
    # Of the same length and within the same second, which caches of compiled files go by.
    file.write_text(file.read_text().replace("return 1", "return 5"))
    changed = load_hooks(plans(call), again)
    assert changed.by_call[call].function(None) == 5
    assert first.by_call[call].function(None) == 1, "what still runs is not changed below its feet"
    file.write_text("def decide(:\n")
    (why,) = refusal(call, former=changed)
    assert "SyntaxError" in why
    file.write_text("def decide(arrival): return 6\n")
    assert load_hooks(plans(call), changed).by_call[call].function(None) == 6


def test_a_module_that_fails_beside_another_is_as_before(file: Path, tmp_path: Path) -> None:
    import rules

    other = tmp_path / "other.py"
    other.write_text("def decide(arrival): ...\n")
    former = load_hooks(plans("rules:decide", "other:decide"))
    file.write_text("def decide(arrival): return 5\n")
    other.write_text("1 / 0\n")
    refusal("rules:decide", "other:decide", former=former)
    assert sys.modules["rules"] is rules


def test_a_file_may_define_data_classes(file: Path) -> None:
    file.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Rule:\n    name: str\n"
        "def decide(arrival): return Rule('x').name\n"
    )
    assert one(f"{file}:decide").function(None) == "x"


def test_questions_on_their_way_still_find_whom_they_ask(file: Path) -> None:
    former = load_hooks(plans(f"{file}:decide"))
    both = load_hooks(plans(f"{file}:later"), former).beside(former)
    assert set(both.by_call) == {f"{file}:decide", f"{file}:later"}
