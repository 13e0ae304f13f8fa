from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace

import pytest
from hypothesis import given

from qanat.plan import (
    EndpointPlan,
    HealthPlan,
    HookPlan,
    LimitsPlan,
    ListenTransportPlan,
    ProxyProtocolPlan,
    RatesPlan,
    RemotePlan,
    RemoteTransportPlan,
    ResolverPlan,
    RoutingPlan,
    TcpPlan,
    TlsListenPlan,
    UdpPlan,
)
from qanat.relay.difference import Difference, changes, difference, sockets
from tests.relay.strategies import plan_lists, plan_sets, plans

TO_A = (RemotePlan(host="a", port=1),)
TO_B = (RemotePlan(host="b", port=2),)


def plan(id: str, listen: str, **other: object) -> EndpointPlan:
    return EndpointPlan(**{"id": id, "listen": listen, "remotes": TO_A} | other)  # type: ignore[arg-type]


@given(plan_lists, plan_lists)
def test_each_plan_of_both_sides_is_in_exactly_one_place(
    old: list[EndpointPlan], new: list[EndpointPlan]
) -> None:
    found = difference(old, new)
    pairs = [*found.changed, *found.rebound]
    assert Counter(old) == Counter([*found.untouched, *found.removed, *(was for was, _ in pairs)])
    assert Counter(new) == Counter([*found.untouched, *found.added, *(now for _, now in pairs)])


@given(plan_sets, plan_sets)
def test_applied_to_the_old_set_it_gives_the_new_one(
    old: list[EndpointPlan], new: list[EndpointPlan]
) -> None:
    running = {entry.id: entry for entry in old}
    found = difference(old, new)
    for gone in (*found.removed, *(was for was, _ in (*found.changed, *found.rebound))):
        del running[gone.id]
    for come in (*found.added, *(now for _, now in (*found.changed, *found.rebound))):
        assert come.id not in running
        running[come.id] = come
    assert running == {entry.id: entry for entry in new}


@given(plan_lists, plan_lists)
def test_kept_sockets_are_equal_and_rebound_ones_differ(
    old: list[EndpointPlan], new: list[EndpointPlan]
) -> None:
    found = difference(old, new)
    assert all(was != now and sockets(was) == sockets(now) for was, now in found.changed)
    assert all(was.id == now.id and sockets(was) != sockets(now) for was, now in found.rebound)


@given(plan_lists)
def test_nothing_differs_from_itself_in_any_order(some: list[EndpointPlan]) -> None:
    found = difference(some, list(reversed(some)))
    assert not found
    assert Counter(found.untouched) == Counter(some)


@given(plan_lists, plan_lists)
def test_no_socket_is_closed_that_an_added_endpoint_could_have_taken(
    old: list[EndpointPlan], new: list[EndpointPlan]
) -> None:
    found = difference(old, new)
    closing = {sockets(entry) for entry in found.removed}
    for come in found.added:
        assert come.listen.endswith(":0") or sockets(come) not in closing


@given(plan_lists, plan_lists)
def test_the_way_back_mirrors_the_way_there(
    old: list[EndpointPlan], new: list[EndpointPlan]
) -> None:
    there, back = difference(old, new), difference(new, old)
    assert Counter(there.untouched) == Counter(back.untouched)
    assert len(there.added) == len(back.removed)
    assert len(there.changed) == len(back.changed)
    assert len(there.rebound) == len(back.rebound)


@given(plans, plans)
def test_the_changed_fields_lead_from_one_plan_to_the_other(
    old: EndpointPlan, new: EndpointPlan
) -> None:
    touched = {change.field.partition(".")[0] for change in changes(old, new)}
    now = {name: getattr(new, name) for name in touched}
    assert replace(old, **now) == new
    assert touched == {
        entry.name
        for entry in fields(EndpointPlan)
        if getattr(old, entry.name) != getattr(new, entry.name)
    }


def test_a_new_target_keeps_the_sockets() -> None:
    old, new = plan("x", "1.2.3.4:80"), plan("x", "1.2.3.4:80", remotes=TO_B)
    assert difference([old], [new]) == Difference((), (), ((old, new),), (), ())


def test_a_renamed_endpoint_keeps_the_sockets() -> None:
    old, new = plan("1.2.3.4:80", "1.2.3.4:80"), plan("web", "1.2.3.4:80")
    assert difference([old], [new]).changed == ((old, new),)


def test_endpoints_that_swap_their_addresses_leave_the_sockets_where_they_are() -> None:
    first, second = plan("x", "1.2.3.4:80"), plan("y", "1.2.3.4:81", remotes=TO_B)
    swapped = [replace(first, listen=second.listen), replace(second, listen=first.listen)]
    found = difference([first, second], swapped)
    assert set(found.changed) == {(first, swapped[1]), (second, swapped[0])}
    assert not found.rebound


def test_a_port_chosen_for_one_endpoint_does_not_fall_to_another() -> None:
    old = plan("x", "127.0.0.1:0")
    new = plan("y", "127.0.0.1:0", remotes=TO_B)
    found = difference([old], [new])
    assert (found.added, found.removed) == ((new,), (old,))


def test_endpoints_with_chosen_ports_are_known_by_what_they_do_when_one_before_them_goes() -> None:
    first = plan("127.0.0.1:0", "127.0.0.1:0")
    second = plan("127.0.0.1:0#2", "127.0.0.1:0", remotes=TO_B)
    moved_up = replace(second, id=first.id)
    found = difference([first, second], [moved_up])
    assert found.changed == ((second, moved_up),)
    assert found.removed == (first,)


@pytest.mark.parametrize(
    "change",
    [
        {"listen": "1.2.3.4:81"},
        {"listen_interface": "eth0"},
        {"tcp": None},
        {"udp": UdpPlan()},
        {"tcp": TcpPlan(accept_mptcp=True)},
    ],
    ids=str,
)
def test_what_makes_new_sockets(change: dict[str, object]) -> None:
    old = plan("x", "1.2.3.4:80")
    new = replace(old, **change)  # type: ignore[arg-type]
    assert difference([old], [new]).rebound == ((old, new),)


@pytest.mark.parametrize(
    "change",
    [
        {"remotes": TO_B},
        {"tcp": TcpPlan(connect_timeout=1.0, keepalive=1, send_mptcp=True)},
        {"through": "10.0.0.1:0"},
        {"interface": "eth0"},
        {"limits": LimitsPlan(connections=1)},
        {"ipv6_only": True},  # means nothing to an IPv4 socket
    ],
    ids=str,
)
def test_what_keeps_the_sockets(change: dict[str, object]) -> None:
    old = plan("x", "1.2.3.4:80")
    new = replace(old, **change)  # type: ignore[arg-type]
    assert difference([old], [new]).changed == ((old, new),)


def test_ipv6_only_makes_new_ipv6_sockets() -> None:
    old = plan("x", "[::]:80")
    new = replace(old, ipv6_only=True)
    assert difference([old], [new]).rebound == ((old, new),)


def test_the_report_names_endpoints_and_sums_them_up() -> None:
    kept, gone = plan("kept", "1.1.1.1:1"), plan("gone", "1.1.1.1:2")
    was, now = plan("moved", "1.1.1.1:3"), plan("moved", "1.1.1.1:4")
    report = difference([kept, gone, was], [kept, now, plan("new", "1.1.1.1:5")]).report()
    assert (report.added, report.removed, report.rebound) == (("new",), ("gone",), ("moved",))
    assert str(report) == "1 added, 1 removed, 1 changed, 1 untouched"
    assert report
    assert not difference([kept], [kept]).report()


def test_changes_are_told_by_path() -> None:
    old = plan("x", "1.2.3.4:80")
    new = replace(old, tcp=TcpPlan(linger=3.0))
    assert [str(change) for change in changes(old, new)] == ["tcp.linger: 30.0 -> 3.0"]
    assert [change.field for change in changes(old, replace(old, tcp=None))] == ["tcp"]


OTHERWISE: dict[str, object] = {
    "remotes": TO_B,
    "weights": (1,),
    "balance": "iphash",
    "limits": LimitsPlan(connections=1),
    "through": "192.0.2.1:0",
    "through_interface": "eth0",
    "interface": "eth0",
    "resolver": ResolverPlan(mode="ipv6_only"),
    "listen_transport": ListenTransportPlan(tls=TlsListenPlan(self_signed="a")),
    "remote_transport": RemoteTransportPlan(uot=True),
    "proxy": ProxyProtocolPlan(accept="required"),
    "health": HealthPlan(failover=True),
    "routing": RoutingPlan(rules=()),
    "allow": ("10.0.0.0/8",),
    "deny": ("10.0.0.0/8",),
    "rates": RatesPlan(flow_up=1),
    "quota": 1,
    "hook": HookPlan(call="a:b"),
}
"""Another value for every field that has nothing to do with the listening sockets."""


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_happens_to_flows_changes_without_touching_the_sockets(name: str) -> None:
    old = plan("a", "0.0.0.0:80")
    new = replace(old, **{name: OTHERWISE[name]})  # type: ignore[arg-type]  # any of the fields
    found = difference([old], [new])
    assert found.changed == ((old, new),)
    assert changes(old, new)


def test_every_field_is_either_of_the_sockets_or_of_the_flows() -> None:
    of_sockets = {"id", "listen", "listen_interface", "ipv6_only", "tcp", "udp"}
    assert {field.name for field in fields(EndpointPlan)} == of_sockets | OTHERWISE.keys()


def test_another_function_of_a_hook_is_a_change() -> None:
    old = plan("a", "0.0.0.0:80", hook=HookPlan(call="a:b"))
    new = replace(old, hook=HookPlan(call="a:c"))
    assert difference([old], [new]).changed == ((old, new),)
    assert [str(change) for change in changes(old, new)] == ["hook.call: 'a:b' -> 'a:c'"]
