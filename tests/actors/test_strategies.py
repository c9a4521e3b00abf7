"""The laws every strategy keeps, and the strategies by order, load and latency."""

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.router.strategies import STRATEGIES
from actors.router.strategies.base import Ask, Memory, Ranked
from messages.routing import Bid, RequestProfile
from tests.actors.router_kit import bid

ASK = Ask(RequestProfile("m", stream=True), 100.0)
EVERY = sorted(STRATEGIES)


def rank(strategy: str, bids: list[Bid], memory: Memory | None = None, rng: Random | None = None) -> Ranked:
    return STRATEGIES[strategy].rank(bids, ASK, memory or Memory(), rng or Random("seed"))


def order(ranked: Ranked) -> list[str]:
    return [bid.provider for _, bid in ranked]


def winner(strategy: str, *bids: Bid, rng: Random | None = None) -> str:
    return order(rank(strategy, list(bids), rng=rng))[0]


def some_bids() -> st.SearchStrategy[list[Bid]]:
    seconds = st.floats(0.0, 100.0)
    one: dict[str, Any] = {
        "in_flight": st.integers(0, 50),
        "weight": st.integers(1, 1000),
        "samples": st.integers(0, 30),
        "latency_p50_s": seconds,
        "latency_ewma_s": seconds,
        "expected_s": seconds,
        "cost_usd": st.none() | st.floats(0.0, 1.0),
        "failure_p": st.floats(0.0, 1.0),
        "failure_loss_s": seconds,
        "cut_p": st.floats(0.0, 1.0),
        "health": st.floats(0.0, 1.0),
        "exploring": st.integers(0, 4),
    }
    fields = st.lists(st.fixed_dictionaries(one), min_size=1, max_size=20)
    return fields.map(lambda rows: [bid(f"p{number:02}", **row) for number, row in enumerate(rows)])


@pytest.mark.parametrize("strategy", EVERY)
@given(bids=some_bids(), seed=st.integers())
def test_a_strategy_ranks_exactly_those_who_bid_with_finite_scores(strategy: str, bids: list[Bid], seed: int) -> None:
    ranked = rank(strategy, bids, rng=Random(seed))
    assert sorted(order(ranked)) == [bid.provider for bid in bids]
    assert all(-1e12 < score < 1e12 for score, _ in ranked)


@pytest.mark.parametrize("strategy", EVERY)
@given(bids=some_bids(), seed=st.integers())
def test_a_strategy_is_determined_by_its_seed_and_changes_nothing(strategy: str, bids: list[Bid], seed: int) -> None:
    memory = Memory()
    given_bids = list(bids)
    once = rank(strategy, bids, memory, Random(seed))
    assert rank(strategy, bids, memory, Random(seed)) == once
    assert bids == given_bids
    assert memory == Memory()


def test_A5_first_keeps_the_order_of_definition() -> None:
    assert order(rank("first", [bid("a", in_flight=9), bid("b"), bid("c")])) == ["a", "b", "c"]


def test_A5_D3_round_robin_goes_round_in_the_order_of_definition() -> None:
    memory, won = Memory(), []
    for _ in range(6):
        won.append(order(rank("round_robin", [bid("a"), bid("b"), bid("c")], memory))[0])
        memory.note(won[-1])
    assert won == ["a", "b", "c", "a", "b", "c"]


@given(present=st.lists(st.sets(st.sampled_from("abcd")), min_size=5, max_size=40))
def test_round_robin_starves_nobody_however_the_others_come_and_go(present: list[set[str]]) -> None:
    memory, waited = Memory(), 0
    for others in present:
        bids = [bid(name) for name in sorted({*others, "e"})]
        won = order(rank("round_robin", bids, memory))[0]
        memory.note(won)
        waited = 0 if won == "e" else waited + 1
        assert waited < 5


def test_B1_least_connections_takes_the_lowest_in_flight_for_its_weight() -> None:
    assert winner("least_connections", bid("a", in_flight=3, weight=3), bid("b", in_flight=2, weight=1)) == "a"
    assert winner("least_connections", bid("a", in_flight=4, weight=3), bid("b", in_flight=1, weight=1)) == "b"


def test_B1_three_to_one_at_rest_gives_about_three_to_one() -> None:
    rng = Random("rest")
    won = Counter(winner("least_connections", bid("a", weight=3), bid("b", weight=1), rng=rng) for _ in range(4000))
    assert 2.7 < won["a"] / won["b"] < 3.3


def test_B1_three_to_one_with_forty_held_calls_gives_about_three_to_one() -> None:
    rng = Random("held")
    held = Counter({"a": 0, "b": 0})
    for _ in range(40):
        bids = [bid("a", weight=3, in_flight=held["a"]), bid("b", weight=1, in_flight=held["b"])]
        held[winner("least_connections", *bids, rng=rng)] += 1
    assert held["a"] in (29, 30, 31)


def test_B1_ties_respect_weights_in_the_fall_back_chain_too() -> None:
    rng = Random("chain")
    bids = [bid("a", weight=1), bid("b", weight=6), bid("c", weight=2)]
    second = Counter(order(rank("least_connections", bids, rng=rng))[1] for _ in range(2000))
    assert second["c"] > second["a"]


def test_pain_weight_zero_is_no_division_by_zero_and_takes_nothing() -> None:
    assert order(rank("least_connections", [bid("a", weight=0), bid("b", in_flight=9)])) == ["b"]


def test_D3_least_latency_takes_the_lowest_median() -> None:
    slow_average = bid("a", latency_p50_s=0.2, latency_ewma_s=0.9)
    assert winner("least_latency", slow_average, bid("b", latency_p50_s=0.3, latency_ewma_s=0.1)) == "a"


def test_D3_least_latency_divides_by_the_health_score() -> None:
    ranked = rank("least_latency", [bid("a", latency_p50_s=0.2, health=0.5), bid("b", latency_p50_s=0.3)])
    assert [(round(score, 6), bid.provider) for score, bid in ranked] == [(0.3, "b"), (0.4, "a")]


def test_D3_an_unsampled_provider_is_tried_first_while_fewer_than_two_explore_it() -> None:
    known = bid("a", latency_p50_s=0.2)
    assert winner("least_latency", known, bid("new", samples=0, exploring=0)) == "new"
    assert winner("least_latency", known, bid("new", samples=0, exploring=1)) == "new"
    assert winner("least_latency", known, bid("new", samples=0, exploring=2)) == "a"


def test_D3_a_median_counts_from_ten_samples_on_and_one_slow_first_call_bars_nobody() -> None:
    known = bid("a", latency_p50_s=0.2, samples=50)
    unlucky = {"latency_p50_s": 1.0, "latency_ewma_s": 1.0}
    assert winner("least_latency", known, bid("b", samples=1, **unlucky)) == "b"
    assert winner("least_latency", known, bid("b", samples=9, **unlucky)) == "a"
    assert winner("least_latency", known, bid("b", samples=1, in_flight=2, **unlucky)) == "a"
    assert winner("least_latency", known, bid("b", samples=10, latency_p50_s=0.1, latency_ewma_s=9.0)) == "b"


def test_least_latency_spreads_equals_by_load_then_by_chance() -> None:
    rng = Random("equal")
    assert winner("least_latency", bid("a", in_flight=1), bid("b"), rng=rng) == "b"
    won = Counter(winner("least_latency", bid("a"), bid("b"), rng=rng) for _ in range(400))
    assert 150 < won["a"] < 250
