"""The circuit as calls meet it: ends of an earlier epoch, calls of before a crash, calls that explore (DESIGN: Circuit)."""

from typing import Any

import pytest

from messages.calls import Award, ContentStarted, Granted, Outcome, Permit, RefusalReason, Restored
from messages.control import CircuitSpec, HealthSpec, ProbeSpec, Reconfigure
from messages.failures import Scope
from messages.health import CircuitState, GetHealth, ProbeCheck, Probed, Status
from messages.routing import Bid, NoBid
from tests.actors.test_provider import World, failure, no_bid, refusal


def explore(world: World, permit_id: str) -> Any:
    """Ask for the permit of a call that explores."""
    return world.give(Award(permit_id, "q", "m", 100, False, 50, True))


def test_an_end_of_an_earlier_epoch_moves_statistics_and_not_the_state() -> None:
    world = World()
    for name in ("bad", "good"):
        world.award(name)
    world.open_circuit()
    opened = world.report()
    world.context.advance(1.0)

    world.fail("bad")

    after = world.report()
    assert (after.failures, after.successes) == (opened.failures + 1, 0)
    assert after.health < opened.health
    world.end("good")
    assert (world.report().successes, world.report().latency_p50_ms) == (1, pytest.approx(500.0, rel=0.1))
    assert no_bid(world.bid())[1] == world.context.now() + 29.0
    assert world.report().circuit is CircuitState.OPEN


@pytest.mark.parametrize("scope", [Scope.CREDENTIAL, Scope.MODEL, Scope.BUCKET])
def test_pain_07_what_is_the_keys_a_models_or_a_limits_never_is_the_circuits_nor_healths(scope: Scope) -> None:
    world = World(circuit=CircuitSpec(failures=1))
    for number in range(10):
        world.award(f"p{number}")
    for number in range(10):
        world.fail(f"p{number}", scope)

    report = world.report()
    assert (report.circuit, report.health, report.failures) == (CircuitState.CLOSED, 1.0, 10)
    world.reconfigure(credential="key-2")
    world.context.advance(700.0)
    assert isinstance(world.bid("n"), Bid), "another model, with another key, after the wait"


def test_a_stream_that_breaks_after_content_is_a_cut_and_no_failure_before_it() -> None:
    told, untold = World(), World()
    for world in (told, untold):
        world.award("p1", stream=True)
        if world is told:
            world.give(ContentStarted("p1", 0.2))
        world.end("p1", Outcome.FAILED, stream=True, failure=failure(Scope.PROVIDER), after_content=world is untold)
        bid = world.bid()
        assert bid.cut_p > 0.05
        assert bid.failure_p == 0.0


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.FAILED, Outcome.CANCELLED])
def test_a_call_of_before_a_crash_is_no_trial_of_the_successor(outcome: Outcome) -> None:
    world = World()
    world.open_circuit()
    world.context.advance(30.0)
    assert world.award("old").trial is True
    world.crash()
    world.give(Restored((Permit("old", "q", "m", 100, False, world.context.time),)))

    assert world.award("new").trial is True, "its place is not taken by the one of before"
    world.end("old", outcome, failure=failure(Scope.PROVIDER) if outcome is Outcome.FAILED else None)
    assert world.report().circuit is CircuitState.HALF_OPEN
    assert refusal(world.award("third"))[0] is RefusalReason.CIRCUIT_OPEN
    world.end("new")
    assert world.report().circuit is CircuitState.CLOSED


def test_a_call_that_explores_passes_an_open_circuit_and_its_success_closes_it() -> None:
    world = World()
    world.open_circuit()
    asked = world.bid()
    assert isinstance(asked, NoBid)
    assert isinstance(asked.exploring, Bid)
    assert refusal(world.award("usual"))[0] is RefusalReason.CIRCUIT_OPEN

    granted = explore(world, "explorer")

    assert (type(granted), granted.trial) == (Granted, False)
    assert refusal(world.award("usual"))[0] is RefusalReason.CIRCUIT_OPEN, "it opens the way for nobody else"
    world.give(ContentStarted("explorer", 0.2))
    assert (world.report().circuit, world.report().status) == (CircuitState.CLOSED, Status.READY)


def test_the_failure_of_a_call_that_explores_changes_neither_the_wait_nor_the_health() -> None:
    world = World()
    world.open_circuit()
    before, held = world.report(), no_bid(world.bid())
    world.context.advance(10.0)
    for number in range(5):
        explore(world, f"explorer{number}")
        world.fail(f"explorer{number}")

    after = world.report()
    assert (after.health, after.circuit, no_bid(world.bid())) == (before.health, CircuitState.OPEN, held)
    assert after.failures == before.failures + 5, "it is counted all the same"
    world.context.advance(20.0)
    assert world.award("trial").trial is True


@pytest.mark.parametrize("slots", [1, 2])
def test_while_the_trials_are_out_no_call_that_explores_is_one_more(slots: int) -> None:
    world = World(circuit=CircuitSpec(half_open_calls=slots))
    world.open_circuit()
    world.context.advance(30.0)
    answers = [explore(world, f"p{number}") for number in range(5)]

    assert [type(answer) is Granted and answer.trial for answer in answers] == [True] * slots + [False] * (5 - slots)
    assert refusal(answers[-1])[0] is RefusalReason.CIRCUIT_OPEN


def test_a_bad_key_is_not_explored() -> None:
    world = World()
    world.call("p1", outcome=Outcome.FAILED, failure=failure(Scope.CREDENTIAL))

    asked = world.bid()
    assert isinstance(asked, NoBid)
    assert asked.exploring is None
    assert refusal(explore(world, "explorer"))[0] is RefusalReason.AUTH_FAILED


def test_D5_with_max_p95_who_is_slower_than_that_is_unhealthy_until_it_is_quicker() -> None:
    world = World()
    world.give(Reconfigure(world.spec, HealthSpec(max_p95_s=2.0), 2))
    for number in range(20):
        world.call(f"quick{number}", duration_s=1.0)
    assert (world.bid().healthy, world.give(GetHealth()).is_healthy) == (True, True)
    for number in range(5):
        world.context.advance(5.0)
        world.call(f"slow{number}", duration_s=2.5)
    assert (world.bid().healthy, world.give(GetHealth()).is_healthy) == (False, False)
    world.context.advance(3600.0)
    for number in range(100):
        world.call(f"again{number}", duration_s=1.0)
    assert world.bid().healthy


def test_D5_a_good_probe_lifts_the_score_that_bids_tell() -> None:
    world = World(probe=ProbeSpec("models", 30.0))
    world.open_circuit()
    world.context.advance(30.0)
    before = world.report().health
    world.give(Probed(True, False, 0.1, ""))
    assert world.report().health > before
    assert world.bid().health == world.report().health


def test_before_its_wait_is_over_an_open_circuit_is_not_probed_however_silent_it_is() -> None:
    world = World(probe=ProbeSpec("models", 5.0))
    world.open_circuit()
    world.context.advance(29.0)
    assert not world.give(ProbeCheck()).wanted
    world.context.advance(1.0)
    assert world.give(ProbeCheck()).why == "circuit_open"


def test_D5_what_is_slow_is_told_by_what_is_normal_for_the_model() -> None:
    world = World()
    for number in range(40):
        world.context.advance(10.0)
        world.call(f"usual{number}", duration_s=8.0)
    assert world.report().health == pytest.approx(1.0), "500 ms is nothing for it"

    for number in range(5):
        world.context.advance(60.0)
        world.call(f"slow{number}", duration_s=60.0)
    slow = world.report().health
    assert 0.7 <= slow < 0.85, "all calls are good, so it falls by no more than its latency"

    # Trickle traffic lifts it.
    for number in range(20):
        world.context.advance(60.0)
        world.call(f"again{number}", duration_s=8.0)
    assert world.report().health > slow + 0.1


def test_a_trial_that_explores_and_fails_is_a_trial_like_any_other() -> None:
    world = World()
    world.open_circuit()
    world.context.advance(30.0)
    assert explore(world, "trial").trial is True
    world.fail("trial")

    assert no_bid(world.bid())[1] == world.context.now() + 60.0
    assert world.report().circuit is CircuitState.OPEN
