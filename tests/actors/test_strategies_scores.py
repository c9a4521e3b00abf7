"""Strategies that score by price, capabilities, an aim or success: ``cost``, ``capability``, ``optimize_*``, ``success_*``."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.routing import Bid
from tests.actors.router_kit import bid
from tests.actors.strategy_desk import order, rank, scores, winner, won


def test_C1_D3_cost_takes_the_cheapest_for_this_request_and_local_ones_before_all() -> None:
    bids = [bid("dear", cost_usd=0.03), bid("unknown", cost_usd=None), bid("cheap", cost_usd=0.01), bid("local", cost_usd=0.0)]
    assert order(rank("cost", bids)) == ["local", "cheap", "dear", "unknown"]


def test_C1_equal_prices_go_to_the_less_loaded_then_to_chance() -> None:
    assert winner("cost", bid("a", cost_usd=0.01, in_flight=2), bid("b", cost_usd=0.01, in_flight=1)) == "b"
    counted = Counter(won("cost", 400, bid("a", cost_usd=0.0), bid("b", cost_usd=0.0)))
    assert 150 < counted["a"] < 250


def test_C1_capability_leaves_generalists_free() -> None:
    bids = [bid("generalist", surplus=4), bid("specialist", surplus=0, in_flight=9), bid("middle", surplus=2)]
    assert order(rank("capability", bids)) == ["specialist", "middle", "generalist"]
    assert scores("capability", *bids) == {"specialist": 0.0, "middle": 2.0, "generalist": 4.0}


def test_C1_equally_capable_ones_go_by_load_then_by_definition() -> None:
    bids = [bid("a", surplus=1, in_flight=1), bid("b", surplus=1), bid("c", surplus=1)]
    assert order(rank("capability", bids)) == ["b", "c", "a"]


def e1_latency(ewma_s: float) -> float:
    return 1.0 / (1.0 + 1000.0 * ewma_s / 100.0)


def test_E1_optimize_latency_weighs_latency_seven_to_three_with_reliability() -> None:
    found = scores("optimize_latency", bid("a", latency_ewma_s=0.3, successes=9.0, failures=1.0))
    assert found["a"] == pytest.approx(-(0.7 * 0.25 + 0.3 * 0.9))


def test_E1_optimize_cost_weighs_cost_six_to_four_with_reliability() -> None:
    priced = bid("a", cost_usd=0.03, tokens=3000, successes=9.0, failures=1.0)
    found = scores("optimize_cost", priced, bid("free", cost_usd=0.0), bid("unknown", cost_usd=None))
    assert found["a"] == pytest.approx(-(0.6 * 0.5 + 0.4 * 0.9))
    assert found["free"] == pytest.approx(-1.0)
    assert found["unknown"] == pytest.approx(-0.4)


def test_E1_optimize_reliability_weighs_reliability_seven_to_three_with_latency() -> None:
    found = scores("optimize_reliability", bid("a", latency_ewma_s=0.3, successes=3.0, failures=1.0))
    assert found["a"] == pytest.approx(-(0.7 * 0.75 + 0.3 * 0.25))


@given(ewma_s=st.floats(0.0, 60.0), successes=st.floats(0.0, 500.0), failures=st.floats(0.0, 500.0))
def test_E1_the_formula_holds_for_any_evidence(ewma_s: float, successes: float, failures: float) -> None:
    calls = successes + failures
    reliability = 1.0 - failures / calls if calls else 1.0
    one = bid("a", latency_ewma_s=ewma_s, successes=successes, failures=failures)
    assert scores("optimize_latency", one)["a"] == pytest.approx(-(0.7 * e1_latency(ewma_s) + 0.3 * reliability))
    assert scores("optimize_reliability", one)["a"] == pytest.approx(-(0.7 * reliability + 0.3 * e1_latency(ewma_s)))


@pytest.mark.parametrize("strategy", ["optimize_latency", "optimize_cost", "optimize_reliability"])
def test_trap_one_never_called_has_the_first_estimate_and_is_not_filtered_out_for_ever(strategy: str) -> None:
    known = bid("known", latency_ewma_s=0.3, successes=9.0, failures=1.0, cost_usd=0.01, tokens=1000)
    new = bid("new", samples=0, latency_ewma_s=0.0, cost_usd=0.01, tokens=1000)
    assert winner(strategy, known, new) == "new"
    fast = bid("fast", latency_ewma_s=0.05, successes=9.0, cost_usd=0.01, tokens=1000)
    assert sorted(order(rank(strategy, [new, fast]))) == ["fast", "new"]


def test_E1_one_never_called_counts_as_a_hundred_milliseconds_without_errors() -> None:
    new = bid("new", samples=0, latency_ewma_s=0.0)
    assert scores("optimize_latency", new)["new"] == pytest.approx(-(0.7 * 0.5 + 0.3))
    assert scores("optimize_reliability", new)["new"] == pytest.approx(-(0.7 + 0.3 * 0.5))
    once = bid("once", samples=1, latency_ewma_s=0.3)
    assert scores("optimize_latency", once)["once"] == pytest.approx(-(0.7 * 0.25 + 0.3))


def test_E1_equals_spread_by_load() -> None:
    assert winner("optimize_latency", bid("a", in_flight=2), bid("b", in_flight=1), bid("c", in_flight=3)) == "b"


def test_A5_success_latency_ratio_is_the_success_rate_over_the_average_latency() -> None:
    found = scores(
        "success_latency_ratio",
        bid("a", latency_ewma_s=0.199, successes=8.0, failures=2.0),
        bid("b", latency_ewma_s=0.499, successes=10.0),
    )
    assert found == pytest.approx({"a": -4.0, "b": -2.0})


def test_A5_an_unknown_one_counts_as_a_thousand_but_not_with_more_than_two_calls_at_once() -> None:
    known = bid("known", latency_ewma_s=0.05, successes=9.0)
    found = scores("success_latency_ratio", known, bid("new", samples=0), bid("busy", samples=0, exploring=2))
    assert list(found) == ["new", "known", "busy"]
    assert found["new"] == -1000.0


def test_trap_success_latency_ratio_looks_at_counts_that_decay() -> None:
    reformed = bid("reformed", samples=9000, successes=40.0, failures=0.0)
    spoiled = bid("spoiled", samples=9000, successes=1.0, failures=3.0)
    assert winner("success_latency_ratio", spoiled, reformed) == "reformed"


def evidence(name: str, successes: float, failures: float) -> Bid:
    return bid(name, successes=successes, failures=failures)


def test_trap_thompson_draws_and_does_not_return_the_mean() -> None:
    rng = Random("thompson")
    draws = {rank("thompson", [evidence("a", 3.0, 1.0)], rng=rng)[0][0] for _ in range(100)}
    assert len(draws) == 100


def test_D3_thompson_draws_from_the_posterior() -> None:
    rng = Random("posterior")
    draws = [1.0 - rank("thompson", [evidence("a", 3.0, 1.0)], rng=rng)[0][0] for _ in range(8000)]
    mean = sum(draws) / len(draws)
    assert mean == pytest.approx(4.0 / 6.0, abs=0.01)
    variance = sum((draw - mean) ** 2 for draw in draws) / len(draws)
    assert variance == pytest.approx(4.0 * 2.0 / (36.0 * 7.0), rel=0.08)


def test_D3_thompson_explores_less_the_more_it_knows() -> None:
    unsure = Counter(won("thompson", 1000, evidence("good", 8.0, 2.0), evidence("new", 0.0, 0.0)))
    sure = Counter(won("thompson", 1000, evidence("good", 800.0, 200.0), evidence("bad", 200.0, 800.0)))
    assert 100 < unsure["new"] < 400
    assert sure["bad"] == 0
