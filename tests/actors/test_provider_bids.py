"""What a bid tells for the choice, and what people and others may say of a provider (FEATURES A3, C2, D1; messages/routing)."""

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.provider.catalog import CAPABILITIES_LISTED_MAX
from actors.provider.quantiles import PEAK_TAU_S
from messages.calls import ContentStarted, Granted, Outcome, RefusalReason, Usage
from messages.control import LimitsSpec, ModelSpec, ProbeSpec, Reset
from messages.failures import Blame, Scope
from messages.health import ProbeCheck, PushMetrics, Status
from messages.routing import Bid, NoBid, NoBidReason
from tests.actors.test_provider import World, failure, no_bid, refusal


def streamed(world: World, permit_id: str, first_s: float = 0.2, tokens: int = 80, model: str = "m") -> None:
    """One stream, alone, that ends well after 0.8 s of output."""
    assert isinstance(world.award(permit_id, model, stream=True), Granted)
    world.context.advance(first_s)
    world.give(ContentStarted(permit_id, first_s))
    world.context.advance(0.8)
    world.end(permit_id, stream=True, duration_s=first_s + 0.8, first_content_s=first_s, usage=Usage(10, tokens), model=model)


def test_B1_the_peak_takes_a_slower_sample_at_once_and_a_faster_one_slowly() -> None:
    world = World()
    for number in range(5):
        streamed(world, f"p{number}")
    assert world.bid(stream=True).latency_peak_s == pytest.approx(0.2)
    streamed(world, "slow", first_s=4.0)
    assert world.bid(stream=True).latency_peak_s == pytest.approx(4.0)
    streamed(world, "quick")
    bid = world.bid(stream=True)
    assert 3.7 < bid.latency_peak_s < 4.0
    assert bid.latency_ewma_s < 2.0


def test_B1_the_peak_of_who_is_left_alone_fades_so_that_it_is_tried_again() -> None:
    world = World()
    streamed(world, "slow", first_s=8.0)
    world.context.advance(PEAK_TAU_S)
    assert world.bid(stream=True).latency_peak_s == pytest.approx(8.0 / 2.718, rel=0.05)
    world.context.advance(5 * PEAK_TAU_S)
    assert world.bid(stream=True).latency_peak_s < 0.05
    assert world.bid(stream=True).latency_ewma_s == pytest.approx(8.0)


def test_the_peak_of_streams_and_of_whole_answers_are_two() -> None:
    world = World()
    streamed(world, "p1")
    world.call("p2", duration_s=3.0, usage=Usage(10, 50))
    assert world.bid(stream=True).latency_peak_s == pytest.approx(0.2, rel=0.05)
    assert world.bid().latency_peak_s == pytest.approx(3.0)


def test_a_call_in_flight_that_is_older_than_the_peak_says_at_least_so_much() -> None:
    world = World()
    for number in range(3):
        streamed(world, f"p{number}")
    world.award("hangs", stream=True)
    world.context.advance(0.1)
    assert world.bid(stream=True).latency_peak_s == pytest.approx(0.2, rel=0.05)
    world.context.advance(5.0)
    assert world.bid(stream=True).latency_peak_s == pytest.approx(5.1)
    world.end("hangs", Outcome.CANCELLED, stream=True, duration_s=1.0)
    assert world.bid(stream=True).latency_peak_s < 0.3


def test_a_call_in_flight_makes_no_peak_of_a_provider_without_samples() -> None:
    world = World()
    world.award("p1", stream=True)
    world.context.advance(0.1)
    assert world.bid(stream=True).latency_peak_s == 0.0


def test_the_output_rate_is_told_once_a_stream_has_shown_it() -> None:
    world = World()
    assert world.bid().tokens_per_s == 0.0
    world.call("whole", usage=Usage(10, 50))
    assert world.bid().tokens_per_s == 0.0
    for number in range(20):
        streamed(world, f"p{number}", tokens=80)
    assert world.bid().tokens_per_s == pytest.approx(100.0, rel=0.1)
    assert world.bid("n").tokens_per_s == 0.0


@given(
    st.frozensets(st.sampled_from([f"c{number}" for number in range(CAPABILITIES_LISTED_MAX + 3)])),
    st.frozensets(st.sampled_from([f"c{number}" for number in range(CAPABILITIES_LISTED_MAX + 3)])),
)
def test_C2_surplus_is_the_number_of_capabilities_that_the_request_does_not_need(has: Any, needs: Any) -> None:
    answer = World(capabilities=tuple(sorted(has))).bid(needs=tuple(sorted(needs)))
    if needs <= has:
        assert answer.surplus == len(has - needs)
    else:
        assert answer.reason is NoBidReason.MISSING_CAPABILITY
        assert answer.detail == ", ".join(sorted(needs - has))


def test_D1_more_output_than_the_model_gives_gets_no_bid_that_says_why() -> None:
    world = World(models=(ModelSpec("m", "m", context_window=1000, max_output_tokens=200), ModelSpec("n", "n")))
    answer = world.bid(max_tokens=201)
    assert no_bid(answer) == (NoBidReason.CONTEXT_TOO_LONG, None)
    assert answer.detail == "max_tokens 201 > 200, the longest answer of the model"
    assert "do not fit into 1000" in world.bid(max_tokens=1001).detail
    assert isinstance(world.bid(max_tokens=200), Bid)
    assert isinstance(world.bid(prompt_tokens=900), Bid)
    assert isinstance(world.bid("n", max_tokens=10**6), Bid)


@pytest.mark.parametrize(
    ("said", "bids_not", "refused", "status"),
    [
        ("unavailable", NoBidReason.UNAVAILABLE, RefusalReason.UNAVAILABLE, Status.UNAVAILABLE),
        ("auth_failed", NoBidReason.AUTH_FAILED, RefusalReason.AUTH_FAILED, Status.AUTH_FAILED),
    ],
)
def test_A3_a_said_status_takes_no_calls_until_a_configuration_says_otherwise(
    said: str, bids_not: NoBidReason, refused: RefusalReason, status: Status
) -> None:
    world = World(probe=ProbeSpec("models"))
    world.award("out")
    world.reconfigure(2, status=said, status_reason="the contract has ended")
    assert world.freed() == []
    assert world.bid() == NoBid("a", bids_not, None, "the contract has ended")
    assert refusal(world.award("p")) == (refused, None)
    assert (world.report().status, world.report().reason) == (status, "the contract has ended")
    assert world.give(ProbeCheck()).wanted is False
    world.end("out")
    world.crash()
    assert world.bid().reason is bids_not
    world.freed()
    world.reconfigure(3, status="", status_reason="")
    assert len(world.freed()) == 1
    world.context.advance(60.0)
    assert isinstance(world.bid(), Bid)


def test_A3_disabled_and_draining_are_told_before_a_said_status() -> None:
    assert no_bid(World(enabled=False, status="auth_failed").bid())[0] is NoBidReason.DISABLED
    assert refusal(World(enabled=False, status="auth_failed").award("p"))[0] is RefusalReason.DISABLED


def test_C2_a_pushed_latency_stands_in_where_nothing_was_measured() -> None:
    world = World()
    world.give(PushMetrics(0.7))
    bid = world.bid(stream=True, max_tokens=50)
    assert (bid.samples, bid.exploring) == (1, 0)
    times = (bid.latency_p50_s, bid.latency_p95_s, bid.latency_ewma_s, bid.latency_peak_s, bid.expected_s)
    assert times == pytest.approx((0.7,) * 5)
    assert (bid.failure_p, bid.health, bid.successes) == (0.0, 1.0, 0.0)


def test_C2_our_own_measurements_outrank_a_pushed_latency_model_by_model() -> None:
    world = World()
    streamed(world, "p1")
    own = world.bid(stream=True)
    world.give(PushMetrics(9.0))
    assert world.bid(stream=True) == own
    assert world.bid("n", stream=True).latency_p50_s == 9.0


def test_C2_what_was_pushed_is_forgotten_in_time_and_a_new_push_replaces_it_whole() -> None:
    world = World()
    world.give(PushMetrics(0.7, 0.5))
    world.give(PushMetrics(0.9))
    assert (world.bid().latency_p50_s, world.bid().failure_p) == (0.9, 0.0)
    world.context.advance(60.0 - 0.001)
    assert world.bid().samples == 1
    world.context.advance(0.001)
    assert (world.bid().samples, world.bid().latency_p50_s) == (0, 0.0)


def test_C2_a_pushed_error_rate_is_the_least_chance_to_fail() -> None:
    world = World()
    world.give(PushMetrics(error_rate=0.25))
    assert world.bid().failure_p == 0.25
    assert world.bid().samples == 1, "who is said to fail is no unknown to be curious about"
    for number in range(4):
        world.award(f"p{number}")
        world.fail(f"p{number}")
    assert world.bid().failure_p > 0.5
    world.give(PushMetrics(error_rate=0.01))
    assert world.bid("n").samples == 0


def test_C2_a_pushed_load_makes_every_request_take_longer_and_no_one_sick() -> None:
    world = World()
    streamed(world, "p1")
    before = world.bid(stream=True, max_tokens=50)
    world.give(PushMetrics(load=0.5))
    after = world.bid(stream=True, max_tokens=50)
    assert after.expected_s == pytest.approx(2.0 * before.expected_s)
    assert (after.health, after.latency_p50_s) == (before.health, before.latency_p50_s)
    world.give(PushMetrics(load=7.0))
    assert world.bid(stream=True, max_tokens=50).expected_s == pytest.approx(20.0 * before.expected_s)


@pytest.mark.parametrize("nonsense", [nan, -1.0, -inf])
def test_C2_pushed_nonsense_is_ignored(nonsense: float) -> None:
    world = World()
    before = world.bid()
    world.give(PushMetrics(nonsense, nonsense, nonsense))
    assert world.bid() == before


ANY_NUMBER = st.one_of(st.none(), st.floats())


@given(ANY_NUMBER, ANY_NUMBER, ANY_NUMBER, st.booleans())
def test_C2_whatever_is_pushed_a_bid_stays_within_sense(latency_s: Any, error_rate: Any, load: Any, is_known: bool) -> None:
    world = World()
    if is_known:
        streamed(world, "p1")
    world.give(PushMetrics(latency_s, error_rate, load))
    bid = world.bid(stream=True)
    assert 0.0 < bid.expected_s < 1e7
    assert 0.0 <= bid.failure_p <= 1.0
    assert 0.0 <= bid.latency_p50_s <= 1e4


def test_C2_another_endpoint_and_a_reset_forget_what_was_pushed_and_a_successor_does_not() -> None:
    world = World()
    world.give(PushMetrics(0.7))
    world.crash()
    world.context.advance(1.0)
    assert world.bid().latency_p50_s == 0.7
    world.reconfigure(endpoint="http://b")
    assert world.bid().latency_p50_s == 0.0
    world.give(PushMetrics(0.7))
    world.give(Reset())
    assert world.bid().latency_p50_s == 0.0


def test_B3_pushed_metrics_admit_no_more_than_limits_do() -> None:
    world = World(limits=LimitsSpec(max_concurrency=0))
    world.give(PushMetrics(0.1, 0.0, 0.0))
    assert no_bid(world.bid())[0] is NoBidReason.AT_CAPACITY


@pytest.mark.parametrize(
    "silent",
    [
        {"outcome": Outcome.FAILED, "failure": failure(Scope.NONE, Blame.CLIENT)},
        {"outcome": Outcome.FAILED, "failure": failure(Scope.BUCKET, retry_after_s=0.0)},
        {"outcome": Outcome.CANCELLED, "duration_s": 0.1},
        {"outcome": Outcome.NOT_SENT},
        {"outcome": Outcome.DRAINED},
    ],
)
def test_A5_what_says_nothing_of_the_provider_is_neither_success_nor_failure(silent: dict[str, Any]) -> None:
    world = World()
    world.award("p1")
    world.end("p1", **silent)
    assert (world.bid().successes, world.bid().failures) == (0.0, 0.0)


def test_A5_successes_and_failures_are_counted_by_model() -> None:
    world = World()
    world.call("p1")
    world.award("p2")
    world.fail("p2")
    world.award("p3", "n")
    world.fail("p3")
    assert (world.bid().successes, world.bid().failures) == (1.0, 1.0)
    assert (world.bid("n").successes, world.bid("n").failures) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("limits", "at_once", "tokens"),
    [
        (LimitsSpec(max_concurrency=10), 8, 1),
        (LimitsSpec(requests_per_minute=600, burst=10), 8, 1),
        (LimitsSpec(tokens_per_minute=1000), 8, 100),
    ],
    ids=["calls at once", "requests per minute", "tokens per minute"],
)
def test_a_bid_says_when_over_80_percent_of_any_limit_is_used(limits: LimitsSpec, at_once: int, tokens: int) -> None:
    world = World(limits=limits)
    for number in range(at_once):
        assert isinstance(world.award(f"p{number}", tokens=tokens), Granted)
    assert world.bid(prompt_tokens=10, max_tokens=10).tight is False

    assert isinstance(world.award("one more", tokens=tokens), Granted)
    assert world.bid(prompt_tokens=10, max_tokens=10).tight is True


def test_a_bid_for_nothing_is_made_though_a_hair_is_missing_in_the_bucket() -> None:
    world = World(limits=LimitsSpec(tokens_per_minute=1000))
    assert isinstance(world.award("p1", tokens=600), Granted)
    world.context.advance(16.9995 / (1000 / 60))
    assert isinstance(world.award("p2", tokens=417), Granted)
    assert world.report().tokens_left == pytest.approx(-0.0005, abs=1e-4)
    assert world.bid(endpoint="embeddings", prompt_tokens=0).strain_s == 0.0
