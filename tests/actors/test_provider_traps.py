"""The traps of the systems we replace that a provider could fall into (PAINS, section 0)."""

from math import isfinite
from typing import Any

import pytest

from messages.calls import Granted, Outcome, Permit, RefusalReason, Restored, Usage
from messages.control import CircuitSpec, LimitsSpec, ModelSpec
from messages.failures import Blame, Scope
from messages.routing import Bid, NoBidReason
from tests.actors.test_provider import World, failure, no_bid, refusal

ENDS: list[dict[str, Any]] = [
    {"outcome": Outcome.SUCCESS},
    {"outcome": Outcome.CANCELLED},
    {"outcome": Outcome.CANCELLED, "duration_s": 300.0},
    {"outcome": Outcome.LOST_HEDGE},
    {"outcome": Outcome.DRAINED},
    {"outcome": Outcome.NOT_SENT},
    {"outcome": Outcome.FAILED},
    {"outcome": Outcome.FAILED, "failure": failure(Scope.PROVIDER)},
    {"outcome": Outcome.FAILED, "failure": failure(Scope.NONE, Blame.CLIENT)},
]


@pytest.mark.parametrize("end", ENDS)
def test_trap_active_connections_do_not_leak_however_a_call_ends(end: dict[str, Any]) -> None:
    world = World(limits=LimitsSpec(max_concurrency=1))
    assert isinstance(world.award("p1"), Granted)
    world.end("p1", **end)
    assert world.bid().in_flight == 0
    assert isinstance(world.award("p2"), Granted)


def test_trap_active_connections_whose_end_was_lost_in_a_crash_do_not_leak() -> None:
    world = World(limits=LimitsSpec(max_concurrency=2))
    world.award("kept")
    world.award("lost")
    world.give(Restored((Permit("kept", "q", "m", 100, False, world.context.time),)))
    assert world.bid().in_flight == 1


@pytest.mark.parametrize("slots", [1, 3])
def test_trap_half_open_lets_no_more_through_than_its_trials(slots: int) -> None:
    world = World(circuit=CircuitSpec(half_open_calls=slots))
    world.open_circuit()
    world.context.advance(30.0)
    answers = [world.award(f"p{number}") for number in range(20)]
    assert sum(isinstance(answer, Granted) for answer in answers) == slots
    assert refusal(answers[-1])[0] is RefusalReason.CIRCUIT_OPEN
    assert no_bid(world.bid())[0] is NoBidReason.CIRCUIT_OPEN


@pytest.mark.parametrize("idle_s", [60.0, 600.0, 3600.0, 1e6])
def test_trap_an_idle_provider_never_decays_to_unhealthy(idle_s: float) -> None:
    world = World()
    for number in range(5):
        world.call(f"p{number}", usage=Usage(10, 50))
    world.context.advance(idle_s)
    assert world.bid().healthy
    fresh = World()
    fresh.context.advance(idle_s)
    assert (fresh.bid().healthy, fresh.bid().health) == (True, 1.0)


def test_trap_a_sick_provider_that_nobody_asks_is_healthy_again_in_time() -> None:
    world = World(circuit=CircuitSpec(failures=1000))
    for number in range(30):
        world.award(f"p{number}")
        world.fail(f"p{number}")
    assert not world.bid().healthy
    world.context.advance(3600.0)
    assert world.bid().healthy


def test_trap_weight_zero_is_told_as_it_is_and_makes_no_number_senseless() -> None:
    bid = World(weight=0).bid(prompt_tokens=10, max_tokens=10)
    assert isinstance(bid, Bid)
    assert bid.weight == 0
    assert all(isfinite(value) for value in (bid.expected_s, bid.health, bid.failure_p, bid.latency_peak_s))


def test_trap_a_provider_never_called_bids_and_says_that_nothing_is_known() -> None:
    bid = World().bid()
    assert isinstance(bid, Bid)
    assert (bid.samples, bid.latency_p50_s, bid.latency_peak_s) == (0, 0.0, 0.0)
    assert 0.0 < bid.expected_s < 60.0


def test_trap_failures_and_successes_are_no_lifetime_ratio_but_fade_even_while_nobody_asks() -> None:
    world = World(circuit=CircuitSpec(failures=1000))
    for number in range(50):
        world.award(f"p{number}")
        world.fail(f"p{number}")
    world.call("good")
    assert world.bid().failures == pytest.approx(50.0, rel=0.01)
    world.context.advance(4 * 3600.0)
    bid = world.bid()
    assert bid.failures < 0.1
    assert bid.successes < 0.1
    assert bid.failure_p < 1e-6


def test_trap_the_first_failure_after_a_long_silence_counts_whole() -> None:
    world = World()
    world.call("p1")
    world.context.advance(4 * 3600.0)
    world.award("p2")
    world.fail("p2")
    assert world.bid().failures == pytest.approx(1.0)


def test_trap_p95_comes_down_again() -> None:
    world = World()
    for number in range(20):
        world.call(f"slow{number}", duration_s=20.0)
    for number in range(200):
        world.context.advance(10.0)
        world.call(f"quick{number}", duration_s=0.5)
    assert world.bid().latency_p95_s == pytest.approx(0.5, rel=0.1)


def test_trap_in_flight_is_what_is_out_now_and_not_what_ever_was() -> None:
    world = World()
    for number in range(50):
        world.call(f"p{number}")
    world.award("out")
    assert world.bid().in_flight == 1


def test_trap_no_permit_is_given_for_a_model_it_does_not_serve_whoever_asks() -> None:
    world = World()
    assert refusal(world.award("p", "x"))[0] is RefusalReason.MODEL_UNAVAILABLE
    assert no_bid(world.bid("x"))[0] is NoBidReason.MODEL_UNAVAILABLE


def test_trap_a_changed_key_or_model_list_keeps_the_calls_that_are_out() -> None:
    world = World(limits=LimitsSpec(max_concurrency=2))
    world.award("p1")
    world.reconfigure(2, credential="key-2")
    world.reconfigure(3, models=(ModelSpec("m", "other"),), endpoint="http://b")
    assert (world.bid().in_flight, world.bid().room) == (1, 1)
    world.end("p1")
    assert world.bid().in_flight == 0


def test_trap_the_price_is_of_this_requests_tokens_and_not_of_a_hundred() -> None:
    world = World()
    small, large = world.bid(prompt_tokens=10, max_tokens=10), world.bid(prompt_tokens=500, max_tokens=250)
    assert small.cost_usd == pytest.approx((10 * 2.0 + 10 * 10.0) / 1e6)
    assert large.cost_usd == pytest.approx((500 * 2.0 + 250 * 10.0) / 1e6)


def test_D3_a_price_counts_max_tokens_whatever_is_likely() -> None:
    world = World()
    bid = world.bid(prompt_tokens=100, max_tokens=800)
    assert isinstance(bid, Bid)
    assert bid.cost_usd == pytest.approx((100 * 2.0 + 800 * 10.0) / 1e6)
    # What it takes an answer to be like before it has seen one.
    assert bid.likely_usd == pytest.approx((100 * 2.0 + 300 * 10.0) / 1e6)
    unbounded = world.bid(prompt_tokens=100, max_tokens=None)
    assert unbounded.cost_usd == unbounded.likely_usd == bid.likely_usd


def test_D3_embeddings_have_a_price_where_only_that_of_the_input_is_known() -> None:
    world = World(models=(ModelSpec("m", "m", 2.0),))
    asked = world.bid(prompt_tokens=500, endpoint="embeddings")
    assert isinstance(asked, Bid)
    assert asked.cost_usd == asked.likely_usd == pytest.approx(500 * 2.0 / 1e6)
    assert world.bid(prompt_tokens=500, max_tokens=10).cost_usd is None


def test_the_last_of_a_rate_limit_is_dear_and_plenty_of_it_is_free() -> None:
    """Three seconds' worth, or twenty requests, are plenty; from there the price rises to a second."""
    world = World(limits=LimitsSpec(requests_per_minute=600, burst=30))
    prices: list[float] = []
    for number in range(30):
        bid = world.bid()
        assert isinstance(bid, Bid)
        prices.append(bid.strain_s)
        world.award(f"p{number}")
    assert prices[:11] == [0.0] * 11, "thirty to twenty left"
    assert prices == sorted(prices)
    assert prices[20] == pytest.approx(0.25), "ten left"
    assert 0.8 < prices[29] < 1.0, "one left"
