"""Services and layers: the two words everything here is made of.

A service is an async callable with one input and one result: a function, a method or an object
with ``__call__``. A layer is a callable from service to service; a frozen dataclass, so that it
prints, compares and can be described. Services are shared by all connections and keep nothing of a
connection on themselves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Protocol, TypeVar, overload

__all__ = ["Layer", "Service", "Stacked", "describe", "stack"]

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)


class Service(Protocol[In, Out]):
    """One input, one result, awaited."""

    def __call__(self, asked: In, /) -> Awaitable[Out]: ...


Inner = TypeVar("Inner", contravariant=True)
Outer = TypeVar("Outer", covariant=True)


class Layer(Protocol[Inner, Outer]):
    """Makes a service from a service; may change what goes in and what comes out."""

    def __call__(self, inner: Inner, /) -> Outer: ...


S = TypeVar("S")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")


class Stacked:
    """What :func:`stack` returns: the outermost service, and the parts for :func:`describe`."""

    __slots__ = ("_serve", "parts")

    def __init__(self, serve: Callable[[Any], Awaitable[Any]], parts: tuple[object, ...]) -> None:
        self._serve = serve
        self.parts: tuple[object, ...] = parts

    def __call__(self, asked: Any, /) -> Awaitable[Any]:
        return self._serve(asked)

    def __repr__(self) -> str:
        return f"stack({', '.join(map(repr, self.parts))})"


@overload
def stack(service: S, /) -> S: ...
@overload
def stack(a: Callable[[S], A], service: S, /) -> A: ...
@overload
def stack(a: Callable[[B], A], b: Callable[[S], B], service: S, /) -> A: ...
@overload
def stack(a: Callable[[B], A], b: Callable[[C], B], c: Callable[[S], C], service: S, /) -> A: ...
@overload
def stack(
    a: Callable[[B], A],
    b: Callable[[C], B],
    c: Callable[[D], C],
    d: Callable[[S], D],
    service: S,
    /,
) -> A: ...
@overload
def stack(
    a: Callable[[B], A],
    b: Callable[[C], B],
    c: Callable[[D], C],
    d: Callable[[E], D],
    e: Callable[[S], E],
    service: S,
    /,
) -> A: ...
@overload
def stack(
    a: Callable[[B], A],
    b: Callable[[C], B],
    c: Callable[[D], C],
    d: Callable[[E], D],
    e: Callable[[F], E],
    f: Callable[[S], F],
    service: S,
    /,
) -> A: ...
@overload
def stack(
    a: Callable[[B], A],
    b: Callable[[C], B],
    c: Callable[[D], C],
    d: Callable[[E], D],
    e: Callable[[F], E],
    f: Callable[[G], F],
    g: Callable[[S], G],
    service: S,
    /,
) -> A: ...
@overload
def stack(
    a: Callable[[B], A],
    b: Callable[[C], B],
    c: Callable[[D], C],
    d: Callable[[E], D],
    e: Callable[[F], E],
    f: Callable[[G], F],
    g: Callable[[H], G],
    h: Callable[[S], H],
    service: S,
    /,
) -> A: ...
def stack(*parts: Any) -> Any:
    """Up to eight layers around a service, the outermost first.

    ::

        service = stack(LimitConns(1000), Timeout(60), echo)

    The result has the type of the outermost service. Beyond eight layers, name a part of the stack.
    """
    if not parts:
        raise TypeError("a stack needs a service")
    *layers, service = parts
    if not callable(service):
        raise TypeError(f"the last part of a stack is a service, not {service!r}")
    for layer in reversed(layers):
        if not callable(layer):
            raise TypeError(f"a layer is called with the service below it; {layer!r} can't be")
        service = layer(service)
        if not callable(service):
            raise TypeError(f"the layer {layer!r} made no service")
    if not layers:
        return service
    return Stacked(service, parts)


def describe(service: object) -> str:
    """The stack as text: one line for each layer with its settings, the service last."""
    return "\n".join("  " * depth + line for depth, line in _lines(service, 0))


def _lines(part: object, depth: int) -> Iterator[tuple[int, str]]:
    if isinstance(part, Stacked):
        for inner in part.parts:
            yield from _lines(inner, depth)
        return
    if is_dataclass(part) and not isinstance(part, type):
        nested: list[tuple[str, object]] = []
        settings: list[str] = []
        for one in fields(part):
            if not one.repr:
                continue
            value = getattr(part, one.name)
            if isinstance(value, Stacked):
                nested.append((one.name, value))
            else:
                settings.append(f"{one.name}={_short(value)}")
        yield depth, f"{type(part).__name__}({', '.join(settings)})"
        for name, value in nested:
            yield depth + 1, f"{name}:"
            yield from _lines(value, depth + 2)
        return
    yield depth, _short(part)


def _short(value: object) -> str:
    name = getattr(value, "__qualname__", None)
    if callable(value) and isinstance(name, str):
        return name.replace("<locals>.", "")
    return repr(value)
