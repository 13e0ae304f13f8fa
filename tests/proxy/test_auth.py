"""Names and passwords: who is let in, what it costs, and what is remembered."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from qanat.proxy import auth
from qanat.proxy.auth import (
    Authenticator,
    HashedUsers,
    UserPass,
    hash_password,
    is_hash,
    verify_password,
)
from qanat.stack.errors import LimitReached
from qanat.stack.facts import User
from tests.stack.conftest import Run

__all__: list[str] = []

SECRET = hash_password("secret")
OTHER = hash_password("other")


async def ask(users: Authenticator, name: str, password: str) -> User | None:
    answer = users(name, password)
    return await answer if inspect.isawaitable(answer) else answer


@pytest.mark.parametrize("users", [UserPass({"john": "secret"}), HashedUsers({"john": SECRET})])
@pytest.mark.parametrize(
    ("name", "password", "right"),
    [
        ("john", "secret", True),
        ("john", "Secret", False),
        ("john", "", False),
        ("jane", "secret", False),
        ("", "", False),
        ("john\udcff", "secret\udcff", False),
    ],
)
def test_who_is_let_in(
    run: Run[Any], users: Authenticator, name: str, password: str, right: bool
) -> None:
    assert run(ask(users, name, password)) == (User(name) if right else None)


def test_nothing_is_shown() -> None:
    assert "secret" not in repr(UserPass({"john": "secret"}))
    assert SECRET not in repr(HashedUsers({"john": SECRET}))


def test_hashes() -> None:
    assert is_hash(SECRET)
    assert verify_password("secret", SECRET)
    assert not verify_password("other", SECRET)
    assert hash_password("secret") != SECRET
    assert not any(mark in SECRET for mark in " :\t#")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        SECRET + "\n",
        SECRET[:-1],
        SECRET.replace("ln=14", "ln=30"),
        SECRET.replace("ln=14", "ln=0"),
        SECRET.replace("r=8", "r=99"),
        SECRET.replace("p=1", "p=64"),
        "$2b$12$" + "a" * 53,
    ],
)
def test_what_is_no_hash(text: str) -> None:
    assert not is_hash(text)
    assert not verify_password("secret", text)


@given(some.text(max_size=100))
def test_any_text_is_answered(text: str) -> None:
    assert not is_hash(text)
    assert not is_hash(f"$scrypt$ln=14,r=8,p=1${text}")


def test_a_success_is_remembered_until_the_password_changes(
    run: Run[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counted(password: str, against: str) -> bool:
        hashed.append(password)
        return verify_password(password, against)

    monkeypatch.setattr(auth, "verify_password", counted)

    async def exchange() -> None:
        users = HashedUsers({"john": SECRET})
        for _ in range(3):
            assert await ask(users, "john", "secret") == User("john")
        assert hashed == ["secret"]
        assert await ask(users, "john", "other") is None
        users.replace({"john": OTHER})
        assert await ask(users, "john", "secret") is None
        assert await ask(users, "john", "other") == User("john")
        users.replace({})
        assert await ask(users, "john", "other") is None

    run(exchange())


def test_what_is_remembered_has_a_bound(run: Run[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "verify_password", lambda password, against: True)

    async def exchange() -> None:
        users = HashedUsers({str(number): SECRET for number in range(50)}, remembered=8)
        for number in range(50):
            assert await ask(users, str(number), "x") == User(str(number))
        assert len(users._proven) == 8
        short = HashedUsers({"john": SECRET}, seconds=0.0)
        assert await ask(short, "john", "x") == User("john")
        assert await ask(short, "john", "x") == User("john")
        assert len(short._proven) == 1

    run(exchange())


def test_who_waits_for_a_hash_has_a_bound(run: Run[Any]) -> None:
    async def exchange() -> None:
        users = HashedUsers({"john": SECRET}, threads=1, waiting=2)
        asked = [ask(users, "john", f"wrong {number}") for number in range(40)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert any(isinstance(answer, LimitReached) for answer in answers)
        assert all(answer is None or isinstance(answer, LimitReached) for answer in answers)
        assert None in answers
        # Later there is room again.
        assert await ask(users, "john", "secret") == User("john")

    run(exchange())
