"""The laws every strategy keeps, and the strategies by order, load and latency."""

from collections import Counter
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.router.strategies import STRATEGIES
from actors.router.strategies.base import Ask, Memory
from messages.routing import Bid, RequestProfile
from tests.actors.router_kit import bid
from tests.actors.strategy_desk import EVERY, order, plan, rank, scores, some_bids, winner, won

BY_SCORE = sorted(
    {
        *("priority", "least_connections", "least_requests", "least_latency", "cost", "capability", "adaptive"),
        *("optimize_latency", "optimize_cost", "optimize_reliability", "success_latency_ratio"),
        "smooth_weighted_round_robin",
    }
)
BY_CHANCE = ["power_of_two", "random", "thompson", "weighted_random"]
BY_TURNS = ["round_robin", "smooth_weighted_round_robin", "weighted"]


def test_every_strategy_of_the_contract_is_there() -> None:
    assert {*BY_SCORE, *BY_CHANCE, *BY_TURNS, "first"} == set(STRATEGIES)
    assert all(strategy.name == name and not strategy.is_foreign for name, strategy in STRATEGIES.items())


# All strategies see the same bids: making them up costs far more than ranking them.


@given(bids=some_bids(), seed=st.integers())
def test_every_strategy_ranks_exactly_those_who_bid_with_finite_scores(bids: list[Bid], seed: int) -> None:
    for strategy in EVERY:
        ranked = rank(strategy, bids, rng=Random(seed))
        assert sorted(order(ranked)) == [bid.provider for bid in bids], strategy
        assert all(-1e12 < score < 1e12 for score, _ in ranked), strategy


@given(bids=some_bids(), seed=st.integers())
def test_every_strategy_is_determined_by_its_seed_and_changes_nothing(bids: list[Bid], seed: int) -> None:
    given_bids = list(bids)
    for strategy in EVERY:
        memory = Memory()
        once = rank(strategy, bids, memory, Random(seed))
        assert rank(strategy, bids, memory, Random(seed)) == once, strategy
        assert bids == given_bids, strategy
        assert memory == Memory(), strategy


@given(bids=some_bids(), seed=st.integers(), shuffle=st.randoms(use_true_random=False))
def test_scores_do_not_depend_on_the_order_of_the_bids(bids: list[Bid], seed: int, shuffle: Random) -> None:
    other = list(bids)
    shuffle.shuffle(other)
    for strategy in BY_SCORE:
        one, two = rank(strategy, bids, rng=Random(seed)), rank(strategy, other, rng=Random(seed))
        given_two = pytest.approx({bid.provider: score for score, bid in two})
        assert {bid.provider: score for score, bid in one} == given_two, strategy
        if strategy != "adaptive":
            # There, any near-equal may come first.
            assert [score for score, _ in one] == pytest.approx([score for score, _ in two]), strategy


@pytest.mark.parametrize("strategy", BY_CHANCE)
def test_chances_do_not_depend_on_the_order_of_the_bids(strategy: str) -> None:
    bids = [
        bid("a", weight=5, latency_peak_s=0.3, successes=8.0, failures=2.0),
        bid("b", weight=2, latency_peak_s=0.2, successes=5.0, failures=1.0),
        bid("c", weight=1, latency_peak_s=0.4, successes=1.0),
    ]
    rng = Random("orders")
    shares = [Counter(winner(strategy, *given, rng=rng) for _ in range(4000)) for given in (bids, bids[::-1])]
    assert all(abs(shares[0][name] - shares[1][name]) < 160 for name in "abc")


@pytest.mark.parametrize("strategy", BY_TURNS)
@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=8), shuffle=st.randoms(use_true_random=False))
def test_shares_do_not_depend_on_the_order_of_the_bids(strategy: str, weights: list[int], shuffle: Random) -> None:
    bids = [bid(f"p{place}", weight=weight) for place, weight in enumerate(weights)]
    other = list(bids)
    shuffle.shuffle(other)
    turns = sum(weights) * len(weights)
    assert Counter(won(strategy, turns, *bids)) == Counter(won(strategy, turns, *other))


@pytest.mark.parametrize("strategy", ["adaptive", "least_latency", "power_of_two", "success_latency_ratio", "thompson"])
def test_trap_the_unsampled_is_tried(strategy: str) -> None:
    known = [bid(name, successes=50.0, latency_peak_s=0.3) for name in ("a", "b")]
    tries = won(strategy, 100, *known, bid("new", samples=0, expected_s=0.0, latency_ewma_s=0.0, latency_p50_s=0.0))
    assert "new" in tries


@pytest.mark.parametrize("strategy", ["least_connections", "smooth_weighted_round_robin", "weighted", "weighted_random"])
def test_trap_weight_zero_is_no_division_by_zero_and_takes_nothing(strategy: str) -> None:
    assert set(won(strategy, 50, bid("a", weight=0), bid("b", in_flight=9), bid("c", weight=3))) <= {"b", "c"}
    assert STRATEGIES[strategy].is_weighted
    assert rank(strategy, [bid("a", weight=0)]) == []


WHO_IS_THERE = [set(names) for count in range(5) for names in combinations("abcd", count)]


@pytest.mark.parametrize("strategy", BY_TURNS)
@given(
    present=st.lists(st.sampled_from(WHO_IS_THERE), min_size=60, max_size=120),
    weights=st.lists(st.integers(1, 4), min_size=5, max_size=5),
)
def test_trap_nobody_starves_however_the_others_come_and_go(strategy: str, present: list[set[str]], weights: list[int]) -> None:
    every = [bid(name, weight=weight) for name, weight in zip("abcde", weights, strict=True)]
    memory, rng, waited = Memory(), Random("go"), 0
    for others in present:
        won = plan(strategy, [bid for bid in every if bid.provider in others or bid.provider == "e"], memory, rng)
        waited = 0 if won == "e" else waited + 1
        assert waited <= 3 * sum(weights)


def test_A5_first_keeps_the_order_of_definition() -> None:
    assert order(rank("first", [bid("a", in_flight=9), bid("b"), bid("c")])) == ["a", "b", "c"]


def test_A5_D3_round_robin_goes_round_in_the_order_of_definition() -> None:
    memory, won = Memory(), []
    for _ in range(6):
        won.append(order(rank("round_robin", [bid("a"), bid("b"), bid("c")], memory))[0])
        memory.note(won[-1])
    assert won == ["a", "b", "c", "a", "b", "c"]


@given(present=st.lists(st.sampled_from(WHO_IS_THERE), min_size=5, max_size=40))
def test_round_robin_starves_nobody_however_the_others_come_and_go(present: list[set[str]]) -> None:
    memory, waited = Memory(), 0
    for others in present:
        bids = [bid(name) for name in sorted({*others, "e"})]
        won = order(rank("round_robin", bids, memory))[0]
        memory.note(won)
        waited = 0 if won == "e" else waited + 1
        assert waited < 5


def test_B1_D3_least_connections_takes_the_lowest_in_flight_for_its_weight() -> None:
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


def test_B2_priority_takes_the_highest_and_equal_ones_in_the_order_of_definition() -> None:
    bids = [bid("a", priority=1), bid("b", priority=7), bid("c"), bid("d", priority=7)]
    assert order(rank("priority", bids)) == ["b", "d", "a", "c"]
    assert order(rank("priority", [bid("x"), bid("y"), bid("z", priority=-1)])) == ["x", "y", "z"]


def test_D3_random_gives_everybody_the_same_share() -> None:
    counted = Counter(won("random", 3000, bid("a", weight=9), bid("b"), bid("c", in_flight=9)))
    assert all(900 < counted[name] < 1100 for name in "abc")


def test_trap_least_requests_counts_what_is_in_flight_and_not_what_was_ever_served() -> None:
    old, new = bid("old", samples=9000, successes=9000.0, in_flight=1), bid("new", in_flight=2)
    assert winner("least_requests", old, new) == "old"
    assert scores("least_requests", old, new) == {"old": 1.0, "new": 2.0}


def test_A5_least_requests_looks_at_no_weight_and_spreads_ties() -> None:
    assert winner("least_requests", bid("a", weight=100, in_flight=2), bid("b", in_flight=1)) == "b"
    counted = Counter(won("least_requests", 400, bid("a", weight=100), bid("b")))
    assert 150 < counted["a"] < 250


def test_power_of_two_takes_the_lower_peak_times_load_of_the_two_it_draws() -> None:
    fast, slow = bid("fast", latency_peak_s=0.2), bid("slow", latency_peak_s=0.5)
    assert scores("power_of_two", fast, slow) == {"fast": 0.2, "slow": 0.5}
    busy = bid("fast", latency_peak_s=0.2, in_flight=3)
    assert {winner("power_of_two", busy, slow, rng=Random(seed)) for seed in range(50)} == {"slow"}
    assert winner("power_of_two", bid("only")) == "only"


def test_power_of_two_never_takes_the_worst_of_three_and_takes_the_second_in_a_third_of_its_draws() -> None:
    bids = [bid("worst", latency_peak_s=0.9), bid("best", latency_peak_s=0.1), bid("second", latency_peak_s=0.4)]
    counted = Counter(won("power_of_two", 3000, *bids))
    assert counted["worst"] == 0
    assert 900 < counted["second"] < 1100
    assert all(order(rank("power_of_two", bids, rng=Random(seed)))[-1] == "worst" for seed in range(20))


def test_power_of_two_tries_an_unknown_one_but_not_with_more_than_two_calls_at_once() -> None:
    known = bid("known", latency_peak_s=0.2)
    assert winner("power_of_two", known, bid("new", samples=0, exploring=1, in_flight=1)) == "new"
    assert winner("power_of_two", known, bid("new", samples=0, exploring=2, in_flight=2)) == "known"
    slow = bid("slow", latency_peak_s=9.0, in_flight=3)
    assert winner("power_of_two", slow, bid("new", samples=0, exploring=2, in_flight=2)) == "slow"


def test_D3_least_latency_takes_the_lowest_median() -> None:
    slow_average = bid("a", latency_p50_s=0.2, latency_ewma_s=0.9)
    assert winner("least_latency", slow_average, bid("b", latency_p50_s=0.3, latency_ewma_s=0.1)) == "a"


def test_D3_least_latency_divides_by_the_health_score() -> None:
    ranked = rank("least_latency", [bid("a", latency_p50_s=0.2, health=0.5), bid("b", latency_p50_s=0.3)])
    assert [(round(score, 6), bid.provider) for score, bid in ranked] == [(0.3, "b"), (0.4, "a")]


def test_D3_least_latency_compares_the_quantile_that_is_configured() -> None:
    bids = [bid("steady", latency_p50_s=0.3, latency_p95_s=0.4), bid("spiky", latency_p50_s=0.2, latency_p95_s=2.0)]
    ranked = STRATEGIES["least_latency"].rank(bids, Ask(RequestProfile("m"), 100.0, is_by_p95=True), Memory(), Random(0))
    assert [(score, bid.provider) for score, bid in ranked] == [(0.4, "steady"), (2.0, "spiky")]
    assert winner("least_latency", *bids) == "spiky"


def test_A5_D3_an_unsampled_provider_is_tried_first_while_fewer_than_two_explore_it() -> None:
    known = bid("a", latency_p50_s=0.2)
    assert winner("least_latency", known, bid("new", samples=0, exploring=0)) == "new"
    assert winner("least_latency", known, bid("new", samples=0, exploring=1)) == "new"
    assert winner("least_latency", known, bid("new", samples=0, exploring=2)) == "a"
    assert winner("least_latency", bid("slow", latency_p50_s=9.0), bid("new", samples=0, exploring=2)) == "slow"


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


def test_power_of_two_leaves_it_to_chance_which_of_two_equals_takes_a_call() -> None:
    three = [bid(name, in_flight=2) for name in "abc"]
    counted = Counter(winner("power_of_two", *three, rng=Random(seed)) for seed in range(600))
    assert all(150 < counted[name] < 250 for name in "abc"), counted
