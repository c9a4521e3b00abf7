"""A provider under a new configuration: what it keeps, what it forgets, and what calls of before still tell (FEATURES B9)."""

from dataclasses import replace

import pytest

from messages.calls import ContentStarted, Granted, Outcome, RefusalReason, Restored
from messages.control import CircuitSpec, Drain, LimitsSpec, ProbeSpec, Reset
from messages.failures import Scope
from messages.health import CircuitState, Status
from messages.routing import Bid, NoBidReason
from tests.actors.test_provider import World, failure, no_bid, refusal


def test_B9_a_key_rotation_keeps_calls_buckets_health_and_circuit() -> None:
    world = World(limits=LimitsSpec(requests_per_minute=60, max_concurrency=9), circuit=CircuitSpec(failures=3))
    for number in range(4):
        world.call(f"good{number}")
    world.award("out")
    world.call("bad", outcome=Outcome.FAILED, failure=failure(Scope.PROVIDER))
    before = world.report()

    world.reconfigure(credential="key-2")

    after = world.report()
    assert after == before
    assert (after.in_flight, after.successes, after.failures) == (1, 4, 1)
    world.end("out")
    assert (world.report().in_flight, world.report().successes) == (0, 5)


def test_B9_a_key_rotation_clears_the_refused_key_at_once_and_nothing_of_the_open_circuit() -> None:
    refused, broken = World(), World()
    refused.call("p1", outcome=Outcome.FAILED, failure=failure(Scope.CREDENTIAL))
    assert refused.report().status is Status.AUTH_FAILED
    broken.open_circuit()

    for world in (refused, broken):
        world.reconfigure(credential="key-2")

    assert isinstance(refused.bid(), Bid)
    assert no_bid(broken.bid())[0] is NoBidReason.CIRCUIT_OPEN


def test_B9_the_old_keys_refusal_says_nothing_of_the_new_one() -> None:
    world = World()
    world.award("old")
    world.reconfigure(credential="key-2")

    world.fail("old", Scope.CREDENTIAL)

    assert isinstance(world.bid(), Bid)
    assert (world.report().failures, world.report().in_flight) == (1, 0)


@pytest.mark.parametrize("scope", [Scope.PROVIDER, Scope.CREDENTIAL, Scope.MODEL, Scope.BUCKET])
def test_B9_calls_to_an_endpoint_of_before_are_counted_and_say_nothing_of_the_new_one(scope: Scope) -> None:
    world = World(circuit=CircuitSpec(failures=2))
    for number in range(8):
        world.award(f"old{number}")
    world.reconfigure(endpoint="http://b")
    fresh = world.bid()

    for number in range(6):
        world.fail(f"old{number}", scope, retry_after_s=60.0)
    world.give(ContentStarted("old6", 30.0))
    world.end("old6", first_content_s=30.0, duration_s=90.0)

    assert isinstance(fresh, Bid)
    assert world.bid() == replace(fresh, in_flight=1)
    report = world.report()
    assert (report.status, report.circuit, report.health) == (Status.UNCHECKED, CircuitState.CLOSED, 1.0)
    assert (report.in_flight, report.successes, report.failures, report.latency_ewma_ms) == (1, 1, 6, 0.0)


def test_B9_new_constants_keep_what_was_counted() -> None:
    world = World(circuit=CircuitSpec(failures=5))
    for number in range(2):
        world.call(f"bad{number}", outcome=Outcome.FAILED, failure=failure(Scope.PROVIDER))
    score = world.report().health

    world.reconfigure(circuit=CircuitSpec(failures=3, open_for_s=7.0), probe=ProbeSpec("off"))

    assert world.report().health == score
    world.call("bad2", outcome=Outcome.FAILED, failure=failure(Scope.PROVIDER))
    assert no_bid(world.bid()) == (NoBidReason.CIRCUIT_OPEN, world.context.now() + 7.0)


def test_B9_one_that_comes_back_while_it_drains_is_as_it_was() -> None:
    world = World()
    world.call("p1")
    world.award("out")
    world.give(Drain())
    assert no_bid(world.bid())[0] is NoBidReason.DRAINING

    world.reconfigure(generation=3)

    report = world.report()
    assert (report.status, report.in_flight, report.successes) == (Status.READY, 1, 1)
    assert isinstance(world.award("p2"), Granted)


def test_pain_08_a_reset_ends_the_cooldown_after_a_rate_limit_too() -> None:
    world = World()
    world.call("p1", outcome=Outcome.FAILED, failure=failure(Scope.BUCKET, retry_after_s=3600.0))
    assert no_bid(world.bid())[0] is NoBidReason.RATE_LIMITED
    world.freed()

    world.give(Reset())

    assert isinstance(world.bid(), Bid)
    assert len(world.freed()) == 1


def test_a_reset_of_our_limits_is_none() -> None:
    world = World(limits=LimitsSpec(requests_per_minute=1))
    world.call("p1")

    world.give(Reset())

    assert no_bid(world.bid())[0] is NoBidReason.RATE_LIMITED


def test_B9_who_met_a_limit_that_came_down_to_what_was_out_is_told_when_there_is_room() -> None:
    world = World(limits=LimitsSpec(max_concurrency=10))
    for name in ("p1", "p2"):
        world.award(name)
    world.reconfigure(limits=LimitsSpec(max_concurrency=2))
    assert no_bid(world.bid())[0] is NoBidReason.AT_CAPACITY
    assert world.freed() == []
    world.end("p1")
    assert world.freed() == [1]


def test_an_award_is_checked_for_its_tokens_anew() -> None:
    world = World(limits=LimitsSpec(tokens_per_minute=1000))
    assert isinstance(world.bid(max_tokens=600), Bid)
    world.award("p1", tokens=600)
    assert refusal(world.award("p2", tokens=600)) == (RefusalReason.RATE_LIMITED, world.context.now() + 12.0)


def test_whose_end_was_lost_in_a_crash_leaves_its_place_to_whoever_waits() -> None:
    world = World(limits=LimitsSpec(max_concurrency=1))
    world.award("lost")
    assert no_bid(world.bid())[0] is NoBidReason.AT_CAPACITY
    world.give(Restored(()))
    assert world.freed() == [1]
