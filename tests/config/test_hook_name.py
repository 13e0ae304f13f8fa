"""The text of hook."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.config.hook_name import HookName, HookNameError, parse_hook

__all__: list[str] = []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a:b", HookName("a", None, "b")),
        ("a.b_c.d1:e.f", HookName("a.b_c.d1", None, "e.f")),
        ("hooks.py:choose", HookName(None, "hooks.py", "choose")),
        ("/etc/a b/hooks.py:choose", HookName(None, "/etc/a b/hooks.py", "choose")),
        ("/etc/hooks.py", HookName(None, "/etc/hooks.py", "decide")),
        ("a:b.py:c", HookName(None, "a:b.py", "c")),
    ],
)
def test_reads(text: str, name: HookName) -> None:
    assert parse_hook(text) == name


def test_a_plan_has_the_whole_path() -> None:
    assert str(parse_hook("hooks.py")) == f"{os.getcwd()}/hooks.py:decide"
    assert str(parse_hook("a.b:c")) == "a.b:c"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no function"),
        (" a:b", "names no function"),
        ("a", "the function is missing"),
        ("a.b", "the function is missing"),
        ("a:", "is not the name of a function"),
        (":b", "neither a module nor a .py file"),
        ("a-b:c", "neither a module nor a .py file"),
        ("a:1", "is not the name of a function"),
        ("/etc/hooks:f", "neither a module nor a .py file"),
        ("libhook.so", "realm's binary hook"),
        ("/lib/libhook.so:f", "realm's binary hook"),
        ("hook.DLL", "realm's binary hook"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(HookNameError, match=message):
        parse_hook(text)


@given(st.text())
def test_whatever_the_text_an_answer_or_its_error(text: str) -> None:
    try:
        parse_hook(text)
    except HookNameError as error:
        assert str(error).isprintable()
