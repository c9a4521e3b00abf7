"""``adaptive``: V = (1 − p)·C + p·(L + C'next) + [stream] cut·penalty, in seconds."""

from collections import Counter
from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.router.strategies.adaptive import PENALTY_S, rank_adaptive
from actors.router.strategies.base import Ask, Memory
from messages.routing import Bid, RequestProfile
from tests.actors.router_kit import Desk, bid, provider


def scores(*bids: Bid, stream: bool = False, rate: float = 100.0, seed: object = 0) -> dict[str, float]:
    ranked = rank_adaptive(list(bids), Ask(RequestProfile("m", stream=stream), rate), Memory(), Random(str(seed)))
    return {bid.provider: score for score, bid in ranked}


def first(*bids: Bid, stream: bool = False, rate: float = 100.0, seed: object = 0) -> str:
    return next(iter(scores(*bids, stream=stream, rate=rate, seed=seed)))


def test_time_and_price_are_added_at_the_rate_of_the_configuration() -> None:
    fast, cheap = bid("fast", expected_s=1.0, cost_usd=0.03), bid("cheap", expected_s=2.0, cost_usd=0.01)
    assert scores(fast, cheap) == pytest.approx({"fast": 4.0, "cheap": 3.0})
    assert first(fast, cheap) == "cheap"
    assert first(fast, cheap, rate=0.0) == "fast"


def test_a_likely_failure_costs_its_loss_and_the_way_to_the_next() -> None:
    shaky, steady = bid("shaky", expected_s=1.0, failure_p=0.5, failure_loss_s=2.0), bid("steady", expected_s=1.5)
    assert scores(shaky, steady) == pytest.approx({"shaky": 0.5 * 1.0 + 0.5 * (2.0 + 1.5), "steady": 1.5})
    assert first(shaky, steady) == "steady"


def test_a_fast_failure_of_a_much_faster_provider_is_worth_the_try() -> None:
    assert first(bid("fast", expected_s=0.1, failure_p=0.5, failure_loss_s=0.02), bid("slow", expected_s=1.0)) == "fast"


def test_without_another_a_failure_is_the_clients_and_costs_the_penalty() -> None:
    assert scores(bid("only", expected_s=1.0, failure_p=0.1)) == pytest.approx({"only": 0.9 + 0.1 * PENALTY_S})


def test_cut_streams_count_for_streams_only() -> None:
    cutter, slow = bid("cutter", expected_s=1.0, cut_p=0.2), bid("slow", expected_s=2.0)
    assert first(cutter, slow, stream=False) == "cutter"
    assert first(cutter, slow, stream=True) == "slow"


def test_trap_an_unknown_provider_is_tried_one_call_at_a_time() -> None:
    known = bid("known", expected_s=1.0)
    assert scores(known, bid("new", samples=0, expected_s=0.0)) == pytest.approx({"new": 0.7, "known": 1.0})
    assert scores(known, bid("new", samples=0, exploring=1)) == pytest.approx({"known": 1.0, "new": 1.5})


def test_trap_an_unknown_provider_is_tried_even_where_the_known_ones_are_far_apart() -> None:
    fast, slow = bid("fast", expected_s=0.5), bid("slow", expected_s=5.0)
    assert first(fast, slow, bid("new", samples=0, expected_s=0.0)) == "new"
    assert first(fast, slow, bid("new", samples=0, exploring=1)) == "fast"


def test_an_unknown_one_is_guessed_from_all_that_the_known_ones_cost_and_its_own_price_adds_nothing() -> None:
    fast = bid("fast", expected_s=0.5, strain_s=0.3, cost_usd=0.002)
    slow = bid("slow", expected_s=2.8, cost_usd=0.002)
    idle, busy = bid("idle", samples=0, cost_usd=0.05), bid("busy", samples=0, exploring=1, cost_usd=0.05)
    found = scores(fast, slow, idle, busy)
    assert found["idle"] == pytest.approx(0.7 * 1.0), "of the least, its strain and price included"
    assert found["busy"] == pytest.approx(1.5 * 2.0), "of their mean"


def test_of_many_near_equals_the_least_loaded_comes_first_wherever_it_stands() -> None:
    for loads in permutations((5, 3, 4, 9)):
        near = [bid(f"p{load}", expected_s=1.0, in_flight=load) for load in loads]
        assert first(*near) == "p3"


def test_where_nobody_is_known_price_alone_tells() -> None:
    assert first(bid("dear", samples=0, cost_usd=0.05), bid("cheap", samples=0, cost_usd=0.01)) == "cheap"


def test_an_unknown_price_counts_as_the_dearest_known_one() -> None:
    found = scores(bid("a", cost_usd=0.01), bid("b", cost_usd=0.05), bid("c", cost_usd=None))
    assert found["c"] == pytest.approx(found["b"])
    assert scores(bid("a", cost_usd=None), bid("b", cost_usd=None)) == pytest.approx({"a": 1.0, "b": 1.0})


def test_near_equals_share_and_the_least_loaded_comes_first() -> None:
    near = [bid("a", expected_s=1.0), bid("b", expected_s=1.05), bid("far", expected_s=1.2)]
    won = Counter(first(*near, seed=seed) for seed in range(400))
    assert won["far"] == 0
    assert 150 < won["a"] < 250
    loaded = [bid("a", expected_s=1.0, in_flight=3), bid("b", expected_s=1.05, in_flight=2)]
    assert {first(*loaded, seed=seed) for seed in range(50)} == {"b"}


def test_the_least_loaded_of_all_near_equals_comes_first_and_the_others_keep_their_order() -> None:
    bids = [bid(f"p{n}", expected_s=1.0 + n / 100, in_flight=9 - n) for n in range(8)]
    for seed in range(20):
        assert list(scores(*bids, seed=seed)) == ["p7", "p0", "p1", "p2", "p3", "p4", "p5", "p6"]


def test_a_hundred_equal_queries_in_one_turn_spread_evenly_over_three_equal_providers() -> None:
    for seed in range(5):
        desk = Desk(*(provider(name, "m") for name in "abc"), seed=str(seed))
        queries = [desk.ask() for _ in range(100)]
        for number in range(len(queries)):
            desk.gathered(bid("a"), bid("b"), bid("c"), fan=number)
        won = Counter(desk.plan(query).choices[0].provider for query in queries)
        assert sorted(won.values()) == [33, 33, 34]


@given(st.lists(st.tuples(st.floats(0.01, 5), st.integers(0, 9)), min_size=2, max_size=12), st.integers())
def test_nobody_as_good_as_the_winner_is_less_loaded(rows: list[tuple[float, int]], seed: int) -> None:
    bids = {f"p{n}": bid(f"p{n}", expected_s=s, in_flight=load) for n, (s, load) in enumerate(rows)}
    found = scores(*bids.values(), seed=seed)
    near = [bids[name].in_flight for name, score in found.items() if score <= 1.1 * min(found.values())]
    assert bids[next(iter(found))].in_flight == min(near)


@given(st.lists(st.tuples(st.floats(0.01, 50), st.floats(0, 1), st.floats(0, 10)), min_size=2, max_size=12))
def test_scores_are_the_formula_whatever_the_order(rows: list[tuple[float, float, float]]) -> None:
    bids = [bid(f"p{n}", expected_s=s, failure_p=p, failure_loss_s=loss) for n, (s, p, loss) in enumerate(rows)]
    found = scores(*bids)
    assert scores(*reversed(bids)) == pytest.approx(found)
    for one in bids:
        others = min(other.expected_s for other in bids if other is not one)
        expected = (1 - one.failure_p) * one.expected_s + one.failure_p * (one.failure_loss_s + others)
        assert found[one.provider] == pytest.approx(expected)


@given(st.lists(st.floats(0.01, 50), min_size=2, max_size=12), st.integers())
def test_the_winner_is_never_more_than_a_tenth_worse_than_the_best(seconds: list[float], seed: int) -> None:
    found = scores(*(bid(f"p{n}", expected_s=s) for n, s in enumerate(seconds)), seed=seed)
    assert next(iter(found.values())) <= 1.1 * min(found.values()) + 1e-9


def test_who_has_plenty_of_its_limit_left_goes_before_one_a_little_faster_that_has_not() -> None:
    assert first(bid("fast", expected_s=1.0, strain_s=0.5), bid("ample", expected_s=1.3)) == "ample"
    assert first(bid("fast", expected_s=1.0, strain_s=0.1), bid("ample", expected_s=1.3)) == "fast"
