"""The text of balance: strategies, weights, and what is wrong with others."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanat import plan
from qanat.config.balancing import STRATEGIES, BalanceError, Balancing, parse_balance

__all__: list[str] = []


def test_the_strategies_are_those_of_plans() -> None:
    assert set(STRATEGIES) == set(get_args(plan.Balance))


@pytest.mark.parametrize(
    ("text", "strategy", "weights"),
    [
        ("off", "off", ()),
        ("off:", "off", ()),
        ("off: 1, 2", "off", (1, 2)),
        ("roundrobin", "roundrobin", ()),
        ("roundrobin: 4, 2, 1", "roundrobin", (4, 2, 1)),
        (" roundrobin :4,2,1 ", "roundrobin", (4, 2, 1)),
        ("iphash: 255,0", "iphash", (255, 0)),
        ("leastconn:1", "leastconn", (1,)),
        ("random2", "random2", ()),
        ("failover", "failover", ()),
    ],
)
def test_reads(text: str, strategy: str, weights: tuple[int, ...]) -> None:
    made = parse_balance(text)
    assert (made.strategy, made.weights) == (strategy, weights)
    assert parse_balance(str(made)) == made


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "empty", "one of off"),
        (": 1, 2", "the strategy before the colon is missing", "one of off"),
        ("RoundRobin", '"RoundRobin" is not', "did you mean roundrobin?"),
        ("round-robin: 1", '"round-robin" is not', "did you mean roundrobin?"),
        ("magic", '"magic" is not', "one of off"),
        ("roundrobin: 300, 1, 2", '"300" is not a weight', "0 to 255"),
        ("roundrobin: 1, -2", '"-2" is not a weight', "0 to 255"),
        ("roundrobin: 1, 2.5", '"2.5" is not a weight', "0 to 255"),
        ("roundrobin: 1,, 2", "a weight is missing", "4, 2, 1"),
        ("roundrobin: 1, 2,", "a weight is missing", "4, 2, 1"),
        ("iphash: 0, 0", "all weights are 0", "above 0"),
        ("failover: 1, 2", "failover has no weights", "failover"),
    ],
)
def test_refuses(text: str, message: str, hint: str) -> None:
    with pytest.raises(BalanceError) as caught:
        parse_balance(text)
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_there_is_one_weight_for_each_remote_or_none() -> None:
    Balancing("iphash", (1, 2)).check(2)
    Balancing("iphash").check(5)
    Balancing("off", (1, 2)).check(1)
    with pytest.raises(BalanceError, match="2 weights for 3 remotes"):
        Balancing("iphash", (1, 2)).check(3)
    with pytest.raises(BalanceError, match="1 weight for 2 remotes"):
        Balancing("iphash", (1,)).check(2)


@given(
    strategy=st.sampled_from(STRATEGIES),
    weights=st.lists(st.integers(0, 255), max_size=300).map(tuple),
)
def test_what_is_written_is_read(strategy: str, weights: tuple[int, ...]) -> None:
    text = f"{strategy}: {','.join(str(weight) for weight in weights)}"
    if strategy == "failover" and weights:
        weights, text = (), strategy
    if weights and not any(weights) and strategy != "off":
        return
    assert parse_balance(text) == Balancing(parse_balance(strategy).strategy, weights)


@given(text=st.text())
def test_whatever_the_text_an_answer_or_its_error(text: str) -> None:
    try:
        made = parse_balance(text)
    except BalanceError as error:
        assert str(error)
    else:
        assert all(0 <= weight <= 255 for weight in made.weights)
