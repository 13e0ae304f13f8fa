"""Matchers: what each looks at, their algebra, and the routes that are made of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from qanat.stack import (
    Address,
    Alpn,
    Client,
    ClientHello,
    Clients,
    ConnectTo,
    Denied,
    Domains,
    DomainSet,
    Extensions,
    HttpHost,
    HttpMethod,
    HttpPath,
    LocalProtocolError,
    Matcher,
    Networks,
    PathParameters,
    Peer,
    Ports,
    RequestHead,
    Route,
    Service,
    Sni,
    Target,
    Tls,
    User,
    Users,
    describe,
    memory_pipe,
)

__all__: list[str] = []


def asked(host: str, port: int = 443, *facts: object) -> ConnectTo:
    found = ConnectTo(Address(host, port))
    for fact in facts:
        found.ext.insert(fact)
    return found


def request(line: str, *fields: tuple[bytes, bytes]) -> ConnectTo:
    method, target = line.encode().split(b" ")
    return asked("x.test", 80, RequestHead(method, target, 1, list(fields)))


def hello(name: str | None, *alpn: str) -> ClientHello:
    return ClientHello(name, alpn, (), (), (), (), encrypted=False)


@pytest.mark.parametrize(
    ("matcher", "about", "fits"),
    [
        (Clients("10.0.0.0/8"), asked("x", 1, Peer(Address("10.1.2.3", 5))), True),
        (Clients("10.0.0.0/8"), asked("x", 1, Peer(Address("::ffff:10.1.2.3", 5))), True),
        (Clients("10.0.0.0/8"), asked("x", 1, Peer(Address("11.1.2.3", 5))), False),
        (
            Clients("10.0.0.0/8"),
            asked("x", 1, Peer(Address("10.1.2.3", 5)), Client(Address("192.0.2.1", 5))),
            False,
        ),
        (Clients("::/0"), asked("x", 1), False),
        (Networks("192.0.2.0/24", "2001:db8::/32"), asked("2001:db8::7"), True),
        (Networks("192.0.2.0/24"), asked("192.0.3.1"), False),
        (Networks("0.0.0.0/0"), asked("name.test"), False),
        (
            Networks("192.0.2.0/24"),
            asked("name.test").with_candidates((Address("192.0.2.1", 1), Address("192.0.2.2", 1))),
            True,
        ),
        (
            Networks("192.0.2.0/24"),
            asked("name.test").with_candidates((Address("192.0.2.1", 1), Address("192.0.3.2", 1))),
            False,
        ),
        (Ports(80, range(8000, 8010)), asked("x", 80), True),
        (Ports(80, range(8000, 8010)), asked("x", 8009), True),
        (Ports(80, range(8000, 8010)), asked("x", 8010), False),
        (Domains("example.com"), asked("a.Example.com."), True),
        (Domains("*.example.com"), asked("example.com"), False),
        (Domains(DomainSet(["example.com"])), asked("example.com"), True),
        (Domains("example.com"), asked("192.0.2.1"), False),
        (Sni("a.test"), asked("x", 1, hello("a.test")), True),
        (Sni("a.test"), asked("x", 1, Tls("", "", server_name="b.a.test")), True),
        (Sni("a.test"), asked("x", 1, hello(None)), False),
        (Sni("a.test"), asked("a.test"), False),
        (Alpn("h2"), asked("x", 1, hello(None, "http/1.1", "h2")), True),
        (Alpn("h2"), asked("x", 1, Tls("", "", alpn="http/1.1"), hello(None, "h2")), False),
        (Alpn("h2"), asked("x", 1), False),
        (Users("john", "jane"), asked("x", 1, User("jane")), True),
        (Users("john"), asked("x", 1), False),
        (HttpMethod("GET", "HEAD"), request("HEAD /"), True),
        (HttpMethod("GET"), request("get /"), False),
        (HttpMethod("GET"), asked("x"), False),
        (HttpHost("a.test"), request("GET http://u@b.a.test:81/?x"), True),
        (HttpHost("a.test"), request("GET /", (b"HOST", b"a.test:80")), True),
        (HttpHost("a.test"), request("CONNECT a.test:443"), True),
        (HttpHost("a.test"), request("GET /"), False),
        (HttpHost("a.test"), request("GET http://[2001:db8::1]:80/"), False),
        (HttpHost("a.test"), asked("a.test"), False),
        (HttpPath("/"), request("GET http://a.test"), True),
        (HttpPath("/a/b"), request("GET /a/b?c/d"), True),
        (HttpPath("/a/b"), request("GET /a%2Fb"), False),
        (HttpPath("/a b"), request("GET /a%20b"), True),
        (HttpPath("/a/*"), request("GET /a/"), True),
        (HttpPath("/a/*"), request("GET /a/b/c"), True),
        (HttpPath("/a/*"), request("GET /a"), False),
        (HttpPath("/{x}/b"), request("GET /a/b"), True),
        (HttpPath("/{x}/b"), request("GET /a/c"), False),
        (HttpPath("/a"), asked("x"), False),
    ],
)
def test_what_matches(matcher: Matcher, about: ConnectTo, fits: bool) -> None:
    assert matcher(about) is fits
    assert (~matcher)(about) is not fits


def test_streams_are_asked_about_their_target() -> None:
    stream, other = memory_pipe()
    assert not Ports(443)(stream)
    stream.ext.insert(Target(Address("a.test", 443)))
    assert (Ports(443) & Domains("a.test"))(stream)
    stream.abort()
    other.abort()


leaves = some.one_of(
    some.integers(1, 5).map(Ports),
    some.sampled_from(["a.test", "b.test", "*.test"]).map(Domains),
    some.sampled_from(["john", "jane"]).map(Users),
)
matchers = some.recursive(
    leaves,
    lambda inner: some.one_of(
        some.tuples(inner, inner).map(lambda two: two[0] & two[1]),
        some.tuples(inner, inner).map(lambda two: two[0] | two[1]),
        inner.map(lambda one: ~one),
    ),
    max_leaves=8,
)
questions = some.builds(
    lambda host, port, user: asked(host, port, User(user)),
    some.sampled_from(["a.test", "b.test", "c.other"]),
    some.integers(1, 5),
    some.sampled_from(["john", "jane", "jim"]),
)


@given(matchers, matchers, questions)
def test_the_laws_of_logic(one: Matcher, other: Matcher, about: ConnectTo) -> None:
    assert (one & other)(about) == (one(about) and other(about))
    assert (one | other)(about) == (one(about) or other(about))
    assert (~(one & other))(about) == (~one | ~other)(about)
    assert (~(one | other))(about) == (~one & ~other)(about)
    assert (~~one)(about) == one(about)


def named(name: str) -> Service[ConnectTo, str]:
    async def serve(about: ConnectTo, /) -> str:
        found = about.ext.get(PathParameters)
        return f"{name} {dict(found.values)}" if found else name

    return serve


def test_routes(run: Any) -> None:
    route = Route(
        (Users("john") & HttpPath("/{kind}/*"), named("john's")),
        ((HttpPath("/{left}/x") & HttpMethod("PUT")) | HttpPath("/{right}/{rest}"), named("two")),
        (Ports(80), named("rest")),
    )
    assert run(route(request("GET /a/x"))) == "two {'right': 'a', 'rest': 'x'}"
    assert run(route(request("PUT /a/x"))) == "two {'left': 'a'}"
    assert run(route(request("GET /a/b/c"))) == "rest"
    known = request("GET /a/b/c")
    known.ext.insert(User("john"))
    assert run(route(known)) == "john's {'kind': 'a'}"
    with pytest.raises(Denied, match="no route"):
        run(route(asked("x", 443)))
    assert run(Route((Ports(1), named("x")), otherwise=named("y"))(asked("x", 2))) == "y"


def test_what_was_learned_counts_only_on_a_match(run: Any) -> None:
    about = request("GET /a/b")
    matcher = HttpPath("/{x}/b") & ~HttpMethod("GET")
    assert run(Route((matcher, named("no")), otherwise=named("yes"))(about)) == "yes"
    assert about.ext.get(PathParameters) is None
    learned = Extensions()
    assert not (~HttpPath("/{x}/b")).look(about, learned)
    assert list(learned) == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Clients("10.0.0.0/40"), "Clients: .*10.0.0.0/40"),
        (lambda: Networks("name.test"), "Networks: .*name.test"),
        (lambda: Ports(0), "Ports: 0 is not between"),
        (lambda: Ports(range(65_000, 70_000)), "not between"),
        (lambda: Domains(DomainSet(), "x"), "names, or one DomainSet"),
        (lambda: HttpPath("a/b"), "no pattern"),
        (lambda: HttpPath("/*/b"), "no pattern"),
        (lambda: HttpPath("/{a}/{a}"), "no pattern"),
    ],
)
def test_mistakes(make: Any, words: str) -> None:
    with pytest.raises(LocalProtocolError, match=words):
        make()


def test_they_are_values_and_print() -> None:
    matcher = Ports(443) & (Domains("a.test") | ~Clients("10.0.0.0/8"))
    assert repr(matcher) == "(Ports(443) & (Domains(a.test) | ~Clients(10.0.0.0/8)))"
    again = Ports(443) & (Domains("a.test") | ~Clients("10.0.0.0/8"))
    assert matcher == again
    assert len({matcher, again}) == 1
    assert repr(matcher) in describe(Route((matcher, named("x"))))
    assert Clients("10.0.0.0/8") != Networks("10.0.0.0/8")
    assert repr(HttpPath("/a/{b}")) == "HttpPath(/a/{b})"
    assert repr(Users("b", "a")) == "Users(a, b)"
