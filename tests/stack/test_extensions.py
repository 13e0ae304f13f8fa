"""Extensions: by type, newest first, forks that keep to themselves."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.stack.extensions import Extensions

__all__: list[str] = []


@dataclass(frozen=True, slots=True)
class Name:
    text: str


@dataclass(frozen=True, slots=True)
class Number:
    value: int


def test_the_newest_wins_and_the_older_stay() -> None:
    ext = Extensions()
    assert ext.get(Name) is None
    assert Name not in ext
    ext.insert(Name("a"))
    ext.insert(Number(1))
    ext.insert(Name("b"))
    assert ext.get(Name) == Name("b")
    assert list(ext.all(Name)) == [Name("b"), Name("a")]
    assert ext.require(Number) == Number(1)
    assert list(ext) == [Name("b"), Number(1)]
    assert repr(ext) == "Extensions(Name(text='b'), Number(value=1))"


def test_what_is_required_and_absent_names_the_class() -> None:
    with pytest.raises(LookupError, match="no Name in the extensions"):
        Extensions().require(Name)


def test_a_fork_sees_its_parent_and_keeps_what_it_learns() -> None:
    parent = Extensions()
    parent.insert(Name("parent"))
    child = parent.fork()
    child.insert(Number(1))
    parent.insert(Name("later"))
    assert child.get(Name) == Name("later")
    child.insert(Name("child"))
    assert child.get(Name) == Name("child")
    assert parent.get(Name) == Name("later")
    assert Number not in parent
    assert list(child.all(Name)) == [Name("child"), Name("later"), Name("parent")]
    assert list(child) == [Number(1), Name("child")]


@given(st.lists(st.one_of(st.builds(Name, st.text()), st.builds(Number, st.integers()))))
def test_it_is_a_list_that_is_read_from_its_end(values: list[Name | Number]) -> None:
    ext = Extensions()
    for value in values:
        ext.insert(value)
    names = [value for value in values if isinstance(value, Name)]
    assert list(ext.all(Name)) == names[::-1]
    assert ext.get(Name) == (names[-1] if names else None)
