"""The address grammars: what is accepted, and what is refused and how."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat.config.address import (
    AddressError,
    HostName,
    InterfaceName,
    ListenAddress,
    NameServer,
    PortRange,
    RemoteAddress,
    ThroughAddress,
    join,
    parse_interface,
    parse_listen,
    parse_nameserver,
    parse_remote,
    parse_through,
)

__all__: list[str] = []

PARSERS = (parse_listen, parse_remote, parse_through, parse_nameserver, parse_interface)

ports = st.integers(1, 65_535)
port_ranges = st.tuples(ports, ports).map(lambda pair: PortRange(min(pair), max(pair)))
labels = st.from_regex(r"[a-z_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=5).map(lambda parts: HostName(".".join(parts)))
hosts = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6), names)
# Characters that mean something to one of the grammars, so that random text comes near to them.
near_addresses = st.text(alphabet="0123456789abcf.:[]%-*/ eth\x00é", max_size=40)


@pytest.mark.parametrize(
    ("text", "host", "first", "last"),
    [
        ("192.0.2.1:5000", "192.0.2.1", 5000, 5000),
        ("[2001:db8::1]:80", "2001:db8::1", 80, 80),
        ("[::0]:80", "::", 80, 80),
        (":::52225", "::", 52225, 52225),
        ("::1:80", "::1", 80, 80),
        ("localhost:0", "localhost", 0, 0),
        ("0:5000", "0.0.0.0", 5000, 5000),
        ("*:5000", "0.0.0.0", 5000, 5000),
        (":5000", "0.0.0.0", 5000, 5000),
        ("[fe80::1%eth0]:80", "fe80::1%eth0", 80, 80),
        ("[fe80::1%3]:80", "fe80::1%3", 80, 80),
        ("fe80::1%eth0:80", "fe80::1%eth0", 80, 80),
        ("0.0.0.0:10000-10010", "0.0.0.0", 10000, 10010),
        ("[::]:65535-65535", "::", 65535, 65535),
        ("name.example.:00080", "name.example.", 80, 80),
        ("bücher.example:80", "xn--bcher-kva.example", 80, 80),
    ],
)
def test_listen(text: str, host: str, first: int, last: int) -> None:
    parsed = parse_listen(text)
    assert (str(parsed.host), parsed.ports) == (host, PortRange(first, last))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "empty", "host:port"),
        ("192.0.2.1", "no port", "0.0.0.0:5000"),
        ("[::1]", "no port", "0.0.0.0:5000"),
        ("::1", "an IPv6 address without a port", "[::1]:443"),
        ("host:", "no port after the colon", "host:port"),
        ("host:http", '"http" is not a port', "a number"),
        ("host:65536", "port 65536 is too high", "65535"),
        ("host:99999999999", "not a port", "a number"),
        ("host:+80", "not a port", "a number"),
        ("host:٨٠", "not a port", "a number"),
        ("host:20-10", "runs backwards", "10-20"),
        ("host:0-10", "can't begin with 0", "1-10"),
        ("host:10-", "not a port", "a number"),
        (" 127.0.0.1:80", "blanks", "127.0.0.1:80"),
        ("127.0.0.1:80\n", "blanks", "127.0.0.1:80"),
        ("http://127.0.0.1:80/x", "a URL", "127.0.0.1:80"),
        ("127.0.0.1/8:80", "no slash", "host:port"),
        ("[localhost]:80", '"localhost" is not an IPv6 address', "without brackets"),
        ("[::1:80", "a bracket without its other half", "[2001:db8::1]:443"),
        ("1.2.3:80", "is not an IPv4 address", "192.0.2.7"),
        ("256.1.1.1:80", "is not an IPv4 address", "192.0.2.7"),
        ("a b:80", "is not a host name", "letters"),
        ("a..b:80", "is not a host name", "letters"),
        ("-a:80", "is not a host name", "letters"),
        (f"{'a' * 64}:80", "is not a host name", "63"),
        ("host.7:80", "neither a host name nor an IP address", "not a number"),
        ("g::1:80", "is not an IPv6 address", "[2001:db8::1]:443"),
        (f"{'a.' * 200}:80", "too long", "host:port"),
        ("[fe80::1%much-too-long-a-device]:80", "not the name of a network device", "15"),
    ],
)
def test_listen_refuses(text: str, message: str, hint: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_listen(text)
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("example.com:443", "example.com", 443),
        ("192.0.2.1:443", "192.0.2.1", 443),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
        ("::1:80", "::1", 80),
        ("_srv.example_x:1", "_srv.example_x", 1),
    ],
)
def test_remote(text: str, host: str, port: int) -> None:
    parsed = parse_remote(text)
    assert (str(parsed.host), parsed.ports.first) == (host, port)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.2.3.4", "no port"),
        ("host", "no port"),
        ("host:99999", "too high"),
        ("host:0", "nothing can be reached at port 0"),
        ("http://h:80", "a URL"),
        ("[name]:80", "is not an IPv6 address"),
        (":80", "the host before the port is missing"),
        ("*:80", "every address"),
        ("0:80", "is not an IPv4 address"),
    ],
)
def test_remote_refuses(text: str, message: str) -> None:
    with pytest.raises(AddressError, match=message):
        parse_remote(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", ThroughAddress(IPv4Address("192.0.2.1"))),
        ("192.0.2.1:4000", ThroughAddress(IPv4Address("192.0.2.1"), 4000)),
        ("[::]:0", ThroughAddress(IPv6Address("::"))),
        ("[2001:db8::1]", ThroughAddress(IPv6Address("2001:db8::1"))),
        ("2001:db8::1", ThroughAddress(IPv6Address("2001:db8::1"))),
        ("fe80::1%lo", ThroughAddress(IPv6Address("fe80::1%lo"))),
        ("name.example:0", ThroughAddress(HostName("name.example"))),
        ("eth0", ThroughAddress(InterfaceName("eth0"))),
        ("eth0.100", ThroughAddress(InterfaceName("eth0.100"))),
        ("wg-home", ThroughAddress(InterfaceName("wg-home"))),
    ],
)
def test_through(text: str, expected: ThroughAddress) -> None:
    assert parse_through(text) == expected


@pytest.mark.parametrize("text", ["", "1.2.3", "[::1", ":80", "a/b", "..", "a name", "[eth0]"])
def test_through_refuses(text: str) -> None:
    with pytest.raises(AddressError):
        parse_through(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.53", NameServer(IPv4Address("192.0.2.53"), 53)),
        ("192.0.2.53:5353", NameServer(IPv4Address("192.0.2.53"), 5353)),
        ("2001:db8::53", NameServer(IPv6Address("2001:db8::53"), 53)),
        ("[2001:db8::53]", NameServer(IPv6Address("2001:db8::53"), 53)),
        ("[2001:db8::53]:5353", NameServer(IPv6Address("2001:db8::53"), 5353)),
        ("dns.example", NameServer(HostName("dns.example"), 53)),
        ("dns.example:54", NameServer(HostName("dns.example"), 54)),
    ],
)
def test_nameserver(text: str, expected: NameServer) -> None:
    assert parse_nameserver(text) == expected


@pytest.mark.parametrize("text", ["", ":53", "192.0.2.53:", "192.0.2.53:0", "1.2.3", " dns"])
def test_nameserver_refuses(text: str) -> None:
    with pytest.raises(AddressError):
        parse_nameserver(text)


@pytest.mark.parametrize("text", ["", "a b", "a/b", "a:b", ".", "..", "x" * 16, "é" * 8, "a\x00b"])
def test_interface_refuses(text: str) -> None:
    with pytest.raises(AddressError):
        parse_interface(text)


def test_a_value_can_not_be_wrong_however_it_is_made() -> None:
    for first, last in ((-1, 5), (5, 65_536), (9, 8), (0, 8)):
        with pytest.raises(AddressError):
            PortRange(first, last)
    with pytest.raises(AddressError):
        HostName("a b")
    with pytest.raises(AddressError):
        InterfaceName("a/b")
    with pytest.raises(AddressError):
        RemoteAddress(HostName("a"), PortRange(0, 0))
    with pytest.raises(AddressError):
        ThroughAddress(HostName("a"), 65_536)
    with pytest.raises(AddressError):
        NameServer(HostName("a"), 0)


@given(hosts, port_ranges)
def test_listen_reads_what_it_writes(
    host: IPv4Address | IPv6Address | HostName, ports: PortRange
) -> None:
    address = ListenAddress(host, ports)
    assert parse_listen(str(address)) == address


@given(hosts, port_ranges)
def test_remote_reads_what_it_writes(
    host: IPv4Address | IPv6Address | HostName, ports: PortRange
) -> None:
    address = RemoteAddress(host, ports)
    assert parse_remote(str(address)) == address


@given(hosts, ports)
def test_nameserver_reads_what_it_writes(
    host: IPv4Address | IPv6Address | HostName, port: int
) -> None:
    server = NameServer(host, port)
    assert parse_nameserver(str(server)) == server


@given(hosts, st.one_of(st.just(0), ports))
def test_through_reads_what_it_writes(
    host: IPv4Address | IPv6Address | HostName, port: int
) -> None:
    address = ThroughAddress(host, port)
    assert parse_through(str(address)) == address


@given(st.ip_addresses(v=6), ports)
def test_ipv6_without_brackets_is_the_same(host: IPv6Address, port: int) -> None:
    assert parse_listen(f"{host}:{port}") == parse_listen(f"[{host}]:{port}")


@given(port_ranges)
def test_a_range_is_its_ports(span: PortRange) -> None:
    listed = list(span)
    assert listed == sorted(set(listed))
    assert (len(span), span.first in span, span.last + 1 in span) == (len(listed), True, False)


@given(port_ranges, port_ranges)
def test_ranges_overlap_when_a_port_is_in_both(one: PortRange, other: PortRange) -> None:
    assert one.overlaps(other) == bool(set(one) & set(other)) == other.overlaps(one)


def test_a_free_port_overlaps_nothing() -> None:
    assert not PortRange(0, 0).overlaps(PortRange(0, 0))


def test_a_single_remote_port_serves_a_whole_range() -> None:
    listen = parse_listen("0.0.0.0:10-12")
    assert listen.texts() == ["0.0.0.0:10", "0.0.0.0:11", "0.0.0.0:12"]
    one, three = parse_remote("a:80"), parse_remote("a:80-82")
    assert [one.port_at(index) for index in range(3)] == [80, 80, 80]
    assert [three.port_at(index) for index in range(3)] == [80, 81, 82]
    assert one.fits(listen.ports) and three.fits(listen.ports)
    assert not parse_remote("a:80-81").fits(listen.ports)


def test_join_brackets_ipv6_alone() -> None:
    assert join(IPv6Address("::1"), 80) == "[::1]:80"
    assert join(HostName("a"), 80) == "a:80"


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.one_of(st.text(max_size=60), near_addresses))
def test_any_text_gives_an_address_or_its_error(parse: object, text: str) -> None:
    assert callable(parse)
    try:
        parsed = parse(text)
    except AddressError as error:
        assert str(error)
    else:
        assert parse(str(parsed)) == parsed
