"""The relay's own work, on the fake engine; ``test_running`` has the real one."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from qanat.config.models import Config, Endpoint, Limits, Network
from qanat.errors import BindError, ConfigError, EngineClosed, RelayStateError
from qanat.observe.flow import Flow
from qanat.relay.difference import Report
from qanat.relay.notice import Notice
from qanat.relay.relay import Relay
from tests.relay.fake_engine import FakeEngine, FakeEngineError, FakeModule
from tests.support.garbage import collect_what_others_left
from tests.support.wait import wait_until, wait_until_async


def endpoint(port: int = 0, remote: str = "h:1", **other: Any) -> Endpoint:
    return Endpoint(listen=f"127.0.0.1:{port}", remote=remote, **other)


@contextmanager
def running(*endpoints: Endpoint, **other: Any) -> Iterator[Relay]:
    relay = Relay(endpoints, **other)
    relay.start()
    try:
        yield relay
    finally:
        relay.stop()


def refusing(call: str, id: str, code: str = "bind") -> Callable[..., FakeEngineError | None]:
    def refuse(asked: str, plan: dict[str, Any]) -> FakeEngineError | None:
        if (asked, plan["id"]) == (call, id):
            return FakeEngineError("Address already in use", code, 98)
        return None

    return refuse


def after(event: threading.Event) -> Callable[..., FakeEngineError | None]:
    """Refuses nothing, but takes its time."""

    def wait(_call: str, _plan: dict[str, Any]) -> None:
        assert event.wait(5)

    return wait


def engine_of(fake: FakeModule) -> FakeEngine:
    return fake.made[-1]


def group_of(fake: FakeModule) -> int:
    return list(engine_of(fake).limits)[-1]


def carry(fake: FakeModule, *ids: int) -> None:
    for id in ids:
        engine_of(fake).carry(group_of(fake), id)


def finish(fake: FakeModule, id: int, reason: str = "client_closed") -> None:
    engine_of(fake).happen({"kind": "ended", "group": group_of(fake), "id": id, "reason": reason})


# Beginning


def test_everything_is_bound_before_anything_is_served(fake: FakeModule) -> None:
    with running(endpoint(80), endpoint(81)) as relay:
        assert [call[0] for call in engine_of(fake).calls] == ["bind", "bind", "start"]
        assert engine_of(fake).ids() == ["127.0.0.1:80", "127.0.0.1:81"]
        assert [entry.address for entry in relay.endpoints] == ["127.0.0.1:80", "127.0.0.1:81"]
        assert relay.running


def test_the_port_that_the_kernel_chose_is_shown(fake: FakeModule) -> None:
    udp = Network(use_udp=True, no_tcp=True)
    with running(endpoint(), endpoint(network=udp)) as relay:
        first, second = relay.endpoints
        assert first.tcp_address == first.address == "127.0.0.1:40000"
        assert first.udp_address is None
        assert second.udp_address == second.address == "127.0.0.1:40001"
        assert second.tcp_address is None


def test_if_one_can_not_bind_nothing_is_left(fake: FakeModule) -> None:
    relay = Relay([endpoint(80), endpoint(81)])
    fake.refuse = refusing("bind", "127.0.0.1:81")
    with pytest.raises(BindError) as caught:
        relay.start()
    assert (caught.value.endpoint, caught.value.errno) == ("127.0.0.1:81", 98)
    assert engine_of(fake).held == {}
    assert engine_of(fake).ended
    assert not relay.running
    assert relay.endpoints == []


def test_what_config_says_reaches_the_engine(fake: FakeModule) -> None:
    config = Config(
        workers=3, pipe_page=4, limits=Limits(max_connections=9), endpoints=[endpoint()]
    )
    with running(config=config) as relay:
        assert engine_of(fake).workers == relay.workers == 3
        assert engine_of(fake).pipe_size == 4 * 4096
        assert engine_of(fake).limits[group_of(fake)]["connections"] == 9


def test_the_argument_wins_over_the_config(fake: FakeModule) -> None:
    with running(endpoint(), config=Config(workers=3), workers=5):
        assert engine_of(fake).workers == 5


def test_endpoints_are_given_once() -> None:
    with pytest.raises(TypeError, match="twice"):
        Relay([endpoint()], config=Config(endpoints=[endpoint()]))


@pytest.mark.parametrize("wrong", [endpoint(), [{"listen": ":1"}], [None]], ids=str)
def test_what_is_no_list_of_endpoints_is_refused_at_once(fake: FakeModule, wrong: Any) -> None:
    with pytest.raises(TypeError, match="list of Endpoint"):
        Relay(wrong)
    with running(endpoint(80)) as relay:
        with pytest.raises(TypeError, match="list of Endpoint"):
            relay.apply_sync(wrong)
        assert engine_of(fake).ids() == ["127.0.0.1:80"]


def test_starting_twice_is_refused_and_harmless(fake: FakeModule) -> None:
    with running(endpoint(80)) as relay:
        with pytest.raises(RelayStateError, match="running already"):
            relay.start()
        assert engine_of(fake).ids() == ["127.0.0.1:80"]


def test_a_stopped_relay_can_be_started_again(fake: FakeModule) -> None:
    relay = Relay([endpoint(80)])
    for _ in range(2):
        relay.start()
        assert engine_of(fake).ids() == ["127.0.0.1:80"]
        relay.stop()
    assert len(fake.made) == 2


def test_relays_of_one_process_share_an_engine(fake: FakeModule) -> None:
    with running(endpoint(80)), running(endpoint(81)):
        assert len(fake.made) == 1
        assert engine_of(fake).ids() == ["127.0.0.1:80", "127.0.0.1:81"]


def test_a_name_that_has_no_address_is_a_config_error(fake: FakeModule) -> None:
    with pytest.raises(ConfigError, match=r"endpoints\[0\]\.listen"):
        Relay([Endpoint(listen="nowhere.invalid:80", remote="h:1")]).start()
    assert fake.made == []


# The end


def test_stopping_what_does_not_run_does_nothing(fake: FakeModule) -> None:
    relay = Relay([endpoint()])
    assert relay.stop() == 0
    relay.start()
    assert relay.stop() == 0
    assert relay.stop() == 0
    assert not relay.running


def test_stopping_cuts_what_is_open_and_says_how_many(fake: FakeModule) -> None:
    relay = Relay([endpoint(80)])
    relay.start()
    carry(fake, 1, 2)
    assert relay.stop() == 2
    assert engine_of(fake).calls[-2:] == [("close", "127.0.0.1:80", -1.0), ("kill_all", 2)]


def test_stopping_waits_for_flows_that_end_in_time(fake: FakeModule) -> None:
    relay = Relay([endpoint(80)])
    relay.start()
    carry(fake, 1)
    live = engine_of(fake).live[group_of(fake)]
    threading.Timer(0.05, live.clear).start()
    assert relay.stop(drain=10) == 0
    (drain,) = [call[2] for call in engine_of(fake).calls if call[0] == "close"]
    assert 9 < drain <= 10.1


def test_stopping_cuts_what_is_open_when_the_time_is_over(fake: FakeModule) -> None:
    relay = Relay([endpoint(80)])
    relay.start()
    carry(fake, 1, 2, 3)
    assert relay.stop(drain=0.05) == 3


def test_a_second_stop_shortens_the_first(fake: FakeModule) -> None:
    relay = Relay([endpoint(80)])
    relay.start()
    carry(fake, 1)
    cut: list[int] = []
    patient = threading.Thread(target=lambda: cut.append(relay.stop(drain=60)))
    patient.start()
    wait_until(lambda: engine_of(fake).calls[-1][0] == "close")
    assert relay.stop() == 0
    patient.join(5)
    assert cut == [1]
    relay.start()
    carry(fake, 1)
    threading.Timer(0.05, engine_of(fake).live[group_of(fake)].clear).start()
    assert relay.stop(drain=60) == 0, "the hurry of the last stop is still on"


def test_draining_stops_accepting_and_leaves_the_rest(fake: FakeModule) -> None:
    with running(endpoint(80)) as relay:
        carry(fake, 1)
        relay.drain(7)
        assert engine_of(fake).calls[-1] == ("close", "127.0.0.1:80", 7)
        assert relay.running
        assert not relay.wait_drained(timeout=0.03)
        with pytest.raises(RelayStateError, match="draining"):
            relay.apply_sync([endpoint(81)])
        engine_of(fake).live[group_of(fake)].clear()
        assert relay.wait_drained()


def test_draining_without_a_limit_lets_flows_live_on(fake: FakeModule) -> None:
    with running(endpoint(80)) as relay:
        relay.drain()
        assert engine_of(fake).calls[-1] == ("close", "127.0.0.1:80", -1.0)


def test_what_needs_a_running_relay_says_so(fake: FakeModule) -> None:
    relay = Relay([endpoint()])
    for call in (relay.flows, relay.stats, relay.open_flows, relay.drain, relay.forget_names):
        with pytest.raises(RelayStateError, match="not running"):
            call()
    with pytest.raises(RelayStateError, match="not running"):
        relay.apply_sync([])
    with pytest.raises(RelayStateError, match="not running"):
        relay.kill(1)
    assert relay.wait_drained()


def test_a_dropped_relay_is_closed_with_a_warning(fake: FakeModule) -> None:
    relay = Relay([endpoint(80)])
    relay.start()
    collect_what_others_left()
    with pytest.warns(ResourceWarning, match=r"Relay running: 127\.0\.0\.1:80> was not stopped"):
        del relay
        gc.collect()
    assert engine_of(fake).held == {}
    engine_of(fake).happen({"group": 0})  # wakes the events thread, which ends the idle engine
    wait_until(lambda: engine_of(fake).ended)


def test_a_stopped_relay_is_dropped_without_a_word(fake: FakeModule) -> None:
    relay = Relay([endpoint(80)])
    relay.start()
    relay.stop()
    del relay
    gc.collect()


def test_when_the_engine_is_gone_calls_say_so_and_stopping_is_easy(fake: FakeModule) -> None:
    relay = Relay([endpoint(80)])
    relay.start()
    group = relay._group
    assert group is not None
    group._shared.end("gone for a test")
    with pytest.raises(EngineClosed, match="gone for a test"):
        relay.flows()
    assert not relay.running
    assert relay.stop() == 0
    assert relay.wait_drained()
    group._shared.gone = None
    group.leave()


# Change


def test_apply_carries_out_the_difference_in_the_right_order(fake: FakeModule) -> None:
    with running(endpoint(80), endpoint(81), endpoint(82, name="moves")) as relay:
        kept = relay.endpoints[0]
        engine_of(fake).calls.clear()
        report = relay.apply_sync(
            [endpoint(80), endpoint(83, name="moves"), endpoint(84), endpoint(81, "other:2")],
            drain=4,
        )
        assert report == Report(
            added=("127.0.0.1:84",),
            removed=(),
            changed=("127.0.0.1:81",),
            rebound=("moves",),
            untouched=("127.0.0.1:80",),
        )
        assert engine_of(fake).calls == [
            ("bind", "127.0.0.1:84", False),
            ("bind", "moves", False),
            ("update", "127.0.0.1:81", 4),
            ("start", "127.0.0.1:84", "moves"),
            ("close", "moves", 4),
        ]
        assert [entry.id for entry in relay.endpoints] == [
            "127.0.0.1:80",
            "moves",
            "127.0.0.1:84",
            "127.0.0.1:81",
        ]
        assert relay.endpoints[0] is kept
        assert relay.endpoints[3].plan.remotes[0].host == "other"
        assert relay.apply_sync([endpoint(81, "other:2")]).removed == (
            "127.0.0.1:80",
            "moves",
            "127.0.0.1:84",
        )
        assert engine_of(fake).ids() == ["127.0.0.1:81"]


def test_nothing_is_done_for_what_is_the_same(fake: FakeModule) -> None:
    with running(endpoint(80), endpoint(81)) as relay:
        engine_of(fake).calls.clear()
        report = relay.apply_sync([endpoint(81), endpoint(80)])
        assert engine_of(fake).calls == [("start",)]
        assert not report


def test_an_endpoint_that_changes_its_protocols_keeps_its_address_by_takeover(
    fake: FakeModule,
) -> None:
    with running(endpoint(80), endpoint(0, name="any")) as relay:
        engine_of(fake).calls.clear()
        udp = Network(use_udp=True)
        report = relay.apply_sync([endpoint(80, network=udp), endpoint(0, name="any", network=udp)])
        assert report.rebound == ("127.0.0.1:80", "any")
        assert engine_of(fake).calls[:2] == [("bind", "127.0.0.1:80", True), ("bind", "any", False)]


def test_endpoints_may_swap_their_addresses(fake: FakeModule) -> None:
    with running(endpoint(80, "a:1", name="a"), endpoint(81, "b:1", name="b")) as relay:
        for _ in range(3):
            relay.apply_sync([endpoint(81, "a:1", name="a"), endpoint(80, "b:1", name="b")])
            assert [entry.address for entry in relay.endpoints] == ["127.0.0.1:81", "127.0.0.1:80"]
            assert [
                (held.plan["listen"], held.plan["remotes"][0]["host"])
                for held in engine_of(fake).held.values()
            ] == [("127.0.0.1:80", "b"), ("127.0.0.1:81", "a")]
            relay.apply_sync([endpoint(80, "a:1", name="a"), endpoint(81, "b:1", name="b")])
            assert [entry.address for entry in relay.endpoints] == ["127.0.0.1:80", "127.0.0.1:81"]


@pytest.mark.parametrize(
    ("call", "id", "code", "error"),
    [("bind", "127.0.0.1:85", "bind", BindError), ("update", "127.0.0.1:81", "plan", ConfigError)],
)
def test_if_anything_is_refused_all_goes_on_as_before(
    fake: FakeModule, call: str, id: str, code: str, error: type[Exception]
) -> None:
    config = Config(limits=Limits(max_connections=1), endpoints=[endpoint(80), endpoint(81)])
    with running(config=config) as relay:
        before = (relay.endpoints, relay.config)
        plans = {handle: held.plan for handle, held in engine_of(fake).held.items()}
        engine_of(fake).refuse = refusing(call, id, code)
        other = Config(
            limits=Limits(max_connections=2),
            endpoints=[
                endpoint(84),
                endpoint(80, "other:1"),
                endpoint(81, "other:1"),
                endpoint(85),
            ],
        )
        with pytest.raises(error):
            relay.apply_sync(other)
        assert (relay.endpoints, relay.config) == before
        assert {handle: held.plan for handle, held in engine_of(fake).held.items()} == plans
        assert engine_of(fake).limits[group_of(fake)]["connections"] == 1
        assert not any(entry[0] == "start" for entry in engine_of(fake).calls[3:])
        engine_of(fake).refuse = lambda _call, _plan: None
        assert relay.apply_sync(other).added == ("127.0.0.1:84", "127.0.0.1:85")
        assert engine_of(fake).limits[group_of(fake)]["connections"] == 2


def test_a_config_that_can_not_be_planned_changes_nothing(fake: FakeModule) -> None:
    with running(endpoint(80)) as relay:
        engine_of(fake).calls.clear()
        with pytest.raises(ConfigError):
            relay.apply_sync([endpoint(81), endpoint(81)])
        assert engine_of(fake).calls == []
        assert [entry.id for entry in relay.endpoints] == ["127.0.0.1:80"]


def test_endpoints_alone_leave_the_rest_of_the_config(fake: FakeModule) -> None:
    config = Config(network=Network(tcp_timeout=9), endpoints=[endpoint(80)])
    with running(config=config) as relay:
        relay.apply_sync([endpoint(81)])
        (only,) = relay.endpoints
        assert only.plan.tcp is not None
        assert only.plan.tcp.connect_timeout == 9.0


# Looking


def test_flows_and_counters_are_typed(fake: FakeModule) -> None:
    with running(endpoint(80)) as relay:
        carry(fake, 7)
        (flow,) = relay.flows()
        assert isinstance(flow, Flow)
        assert (flow.id, flow.state) == (7, "open")
        assert relay.open_flows() == 1
        assert relay.stats().workers[0].flows == 1
        assert relay.kill(7)
        assert not relay.kill(7)
        assert relay.flows() == []
        relay.forget_names()
        assert engine_of(fake).calls[-1] == ("flush_resolvers",)


def test_repr_tells_the_state_and_a_few_addresses(fake: FakeModule) -> None:
    relay = Relay([endpoint(port) for port in (80, 81, 82, 83)])
    assert repr(relay) == "<Relay not running>"
    relay.start()
    assert repr(relay) == "<Relay running: 127.0.0.1:80, 127.0.0.1:81, 127.0.0.1:82, ...>"
    relay.drain()
    assert repr(relay).startswith("<Relay draining: ")
    relay.stop()


# Being told


def test_records_of_ended_flows_are_wanted_only_while_somebody_listens(fake: FakeModule) -> None:
    with running(endpoint(80)) as relay:
        assert not engine_of(fake).watched.get(group_of(fake))
        remove = relay.on_ended(lambda _flow: None)
        assert engine_of(fake).watched[group_of(fake)]
        remove()
        finish(fake, 1)
        wait_until(lambda: not engine_of(fake).watched[group_of(fake)])
        iterator = relay.ended()
        assert engine_of(fake).watched[group_of(fake)]
        del iterator
        finish(fake, 1)
        wait_until(lambda: not engine_of(fake).watched[group_of(fake)])


def test_who_listens_before_the_start_misses_nothing(fake: FakeModule) -> None:
    relay = Relay([endpoint(80)])
    heard: list[int] = []
    relay.on_ended(lambda flow: heard.append(flow.id))
    with_start: list[bool] = []
    relay.start()
    with_start.append(engine_of(fake).watched[group_of(fake)])
    finish(fake, 5)
    wait_until(lambda: heard == [5])
    relay.stop()
    assert with_start == [True]


def test_what_is_cut_by_stopping_is_told_before_stop_returns(fake: FakeModule) -> None:
    heard: list[tuple[int, str | None]] = []
    with running(endpoint(80)) as relay:
        relay.on_ended(lambda flow: heard.append((flow.id, flow.reason)))
        carry(fake, *range(100))
    assert heard == [(id, "shutdown") for id in range(100)]


def test_a_callback_may_stop_the_relay(fake: FakeModule) -> None:
    relay = Relay([endpoint(80)])
    relay.start()
    relay.on_ended(lambda _flow: relay.stop())
    finish(fake, 1)
    wait_until(lambda: not relay.running and engine_of(fake).ended)


def test_a_callback_that_fails_is_logged_and_the_others_are_called(
    fake: FakeModule, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[int] = []

    def fail(_: Flow) -> None:
        raise ValueError("mine")

    with running(endpoint(80)) as relay:
        relay.on_ended(fail)
        relay.on_ended(lambda flow: heard.append(flow.id))
        finish(fake, 1)
        finish(fake, 2)
        wait_until(lambda: heard == [1, 2])
    assert "mine" in caplog.text


def test_notices_go_to_callbacks_and_else_to_the_log(
    fake: FakeModule, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Notice] = []
    with running(endpoint(80)) as relay:
        notice = {"kind": "notice", "group": group_of(fake), "endpoint": "e"}
        remove = relay.on_notice(heard.append)
        engine_of(fake).happen(notice | {"code": "c", "text": "heard", "count": 2})
        wait_until(lambda: heard == [Notice("e", "c", "heard", 2)])
        remove()
        engine_of(fake).happen(notice | {"code": "c", "text": "logged"})
        wait_until(lambda: "logged" in caplog.text)
    assert "heard" not in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_lost_records_are_counted_and_noticed(fake: FakeModule) -> None:
    heard: list[Notice] = []
    with running(endpoint(80)) as relay:
        iterator = relay.ended()
        relay.on_notice(heard.append)
        engine_of(fake).happen({"kind": "lost", "group": group_of(fake), "count": 7})
        wait_until(lambda: heard)
        assert (heard[0].code, heard[0].count) == ("events_lost", 7)
        assert iterator.lost == 7


# asyncio


@asynccontextmanager
async def serving(*endpoints: Endpoint) -> AsyncIterator[Relay]:
    async with Relay(endpoints) as relay:
        yield relay


def test_the_context_manager_starts_and_stops(fake: FakeModule) -> None:
    async def use() -> Relay:
        async with Relay([endpoint(80)]) as relay:
            assert engine_of(fake).ids() == ["127.0.0.1:80"]
        return relay

    relay = asyncio.run(use())
    assert not relay.running
    assert engine_of(fake).ended


def test_the_context_manager_stops_after_an_error(fake: FakeModule) -> None:
    async def use() -> None:
        async with serving(endpoint(80)):
            raise LookupError("the user's own")

    with pytest.raises(LookupError):
        asyncio.run(use())
    assert engine_of(fake).ended


def test_ended_flows_can_be_iterated_until_the_relay_stops(fake: FakeModule) -> None:
    async def use() -> list[int]:
        async with serving(endpoint(80)) as relay:
            finish(fake, 0)
            found: list[int] = []

            async def collect() -> None:
                async for flow in relay.ended():
                    found.append(flow.id)  # noqa: PERF401  (each as it comes)

            collecting = asyncio.ensure_future(collect())
            await asyncio.sleep(0)
            finish(fake, 1)
            await wait_until_async(lambda: 1 in found)
            carry(fake, 2, 3)
        await collecting
        return found

    assert asyncio.run(use())[-3:] == [1, 2, 3]


def test_apply_without_blocking_the_loop(fake: FakeModule) -> None:
    going_on = threading.Event()

    async def use() -> Report:
        async with serving(endpoint(80)) as relay:
            engine_of(fake).refuse = after(going_on)
            applying = asyncio.ensure_future(relay.apply([endpoint(81)]))
            await asyncio.sleep(0.01)
            assert not applying.done()
            going_on.set()
            return await applying

    assert asyncio.run(use()).added == ("127.0.0.1:81",)


def test_a_cancelled_apply_is_carried_out_as_a_whole_before_it_returns(fake: FakeModule) -> None:
    going_on = threading.Event()

    async def use() -> list[str]:
        async with serving(endpoint(80)) as relay:
            engine_of(fake).refuse = after(going_on)
            applying = asyncio.ensure_future(relay.apply([endpoint(81)]))
            await asyncio.sleep(0.01)
            applying.cancel()
            threading.Timer(0.05, going_on.set).start()
            with pytest.raises(asyncio.CancelledError):
                await applying
            return engine_of(fake).ids()

    assert asyncio.run(use()) == ["127.0.0.1:81"]


def test_a_cancelled_start_leaves_nothing_running(fake: FakeModule) -> None:
    going_on = threading.Event()
    fake.refuse = after(going_on)

    async def use() -> None:
        relay = Relay([endpoint(80)])
        starting = asyncio.ensure_future(relay.astart())
        await wait_until_async(lambda: fake.made)
        starting.cancel()
        await asyncio.sleep(0)
        starting.cancel()  # the impatient cancel twice
        going_on.set()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not relay.running
        assert engine_of(fake).ended

    asyncio.run(use())


def test_a_cancelled_close_cuts_what_drains(fake: FakeModule) -> None:
    async def use() -> None:
        relay = Relay([endpoint(80)])
        await relay.astart()
        carry(fake, 1)
        closing = asyncio.ensure_future(relay.aclose(drain=60))
        await wait_until_async(lambda: engine_of(fake).calls[-1][0] == "close")
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert not relay.running
        assert engine_of(fake).calls[-1] == ("kill_all", 1)

    asyncio.run(use())


def test_one_relay_may_serve_several_loops(fake: FakeModule) -> None:
    relay = Relay([endpoint(80)])
    found: list[int] = []

    async def one() -> None:
        async for flow in relay.ended():
            found.append(flow.id)
            return

    relay.start()
    loops = [threading.Thread(target=lambda: asyncio.run(one())) for _ in range(2)]
    for loop in loops:
        loop.start()
    wait_until(lambda: len(relay._iterators) == 2)
    finish(fake, 4)
    for loop in loops:
        loop.join(5)
    relay.stop()
    assert found == [4, 4]
