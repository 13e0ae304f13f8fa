"""Stacks of layers: how they are called, printed and refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from qanat.stack.service import Service, Stacked, describe, stack

__all__: list[str] = []


@dataclass(frozen=True, slots=True)
class Add:
    """A layer that adds to what goes in."""

    much: int

    def __call__(self, inner: Service[int, int], /) -> Service[int, int]:
        return _Adding(self.much, inner)


@dataclass(frozen=True, slots=True)
class _Adding:
    much: int
    inner: Service[int, int]

    async def __call__(self, asked: int, /) -> int:
        return await self.inner(asked + self.much)


@dataclass(frozen=True, slots=True)
class Spell:
    """A layer that changes the type of what comes out."""

    def __call__(self, inner: Service[int, int], /) -> Service[int, str]:
        async def spell(asked: int, /) -> str:
            return str(await inner(asked))

        return spell


async def double(number: int, /) -> int:
    return number * 2


@dataclass(frozen=True, slots=True)
class Choose:
    """A service with a stack inside it."""

    otherwise: Service[int, int]

    async def __call__(self, asked: int, /) -> int:
        return await self.otherwise(asked)


async def call(service: Service[int, str], asked: int) -> str:
    return await service(asked)


def test_the_first_layer_is_the_outermost() -> None:
    service = stack(Spell(), Add(1), Add(10), double)
    assert asyncio.run(call(service, 5)) == "32"


@pytest.mark.parametrize("count", range(9))
def test_up_to_eight_layers(count: int) -> None:
    service = stack(*[Add(1)] * count, double)  # type: ignore[call-overload]
    assert asyncio.run(service(0)) == 2 * count


def test_a_service_alone_is_a_stack() -> None:
    assert stack(double) is double


def test_what_is_no_stack() -> None:
    with pytest.raises(TypeError, match="a stack needs a service"):
        stack()  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="the last part of a stack is a service, not 5"):
        stack(Add(1), 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'x' can't be"):
        stack("x", double)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="made no service"):
        stack(lambda inner: None, double)


def test_describe_prints_each_layer_with_its_settings() -> None:
    service = stack(Add(1), Add(2), Choose(stack(Add(3), double)))
    assert isinstance(service, Stacked)
    assert describe(service).splitlines() == [
        "Add(much=1)",
        "Add(much=2)",
        "Choose()",
        "  otherwise:",
        "    Add(much=3)",
        "    double",
    ]
    assert repr(stack(Add(1), double)).startswith("stack(Add(much=1), <function double")
