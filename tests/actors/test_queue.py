"""The queue: who waits, who goes next, who has waited long enough."""

import pytest

from messages.calls import CallEnded, Outcome
from messages.control import Configured
from messages.decisions import GetRouterStats
from messages.routing import CapacityFreed, Claimed, Hints, NoBidReason, RequestProfile, RouteError, RouteQuery, Withdraw
from tests.actors.router_kit import Desk, bid, chain, full, no, provider, snapshot

A, B = (provider(name, "m") for name in "ab")
LIMITED = NoBidReason.RATE_LIMITED


def waiting(desk: Desk, *query_ids: str) -> None:
    """Let these queries wait for ``a``, which is full."""
    for query_id in query_ids:
        desk.ask(query_id=query_id)
        desk.gathered(full("a"))
        assert desk.is_waiting(query_id)


def asks(desk: Desk) -> list[str]:
    """The queries of all fan-outs so far."""
    return [fan.message.query_id for fan in desk.context.fans]


def test_a_query_whose_providers_are_full_waits_and_runs_a_new_round_when_one_frees() -> None:
    desk = Desk(A, B)
    query_id = desk.ask()
    desk.gathered(full("a"), full("b"))
    assert desk.is_waiting(query_id)
    assert desk.give(GetRouterStats())[0].waiting == 1
    desk.give(CapacityFreed("b", 1))
    assert desk.asked() == ("a", "b")
    desk.gathered(full("a"), bid("b"))
    assert chain(desk.plan(query_id)) == ["b"]
    assert desk.give(GetRouterStats())[0].waiting == 0


def test_who_may_not_wait_is_answered_at_once() -> None:
    assert Desk(A).decide(full("a"), may_wait=False).error == RouteError.AT_CAPACITY


@pytest.mark.parametrize(
    ("answer", "waits"),
    [
        (full("a"), True),
        (no("a", LIMITED, 1005.0), True),
        (no("a", LIMITED, 1015.0), False),
        (no("a", LIMITED, None), False),
        (no("a", NoBidReason.CIRCUIT_OPEN, 1005.0), True),
        (no("a", NoBidReason.CIRCUIT_OPEN, 1030.0), False),
        (no("a", NoBidReason.AUTH_FAILED), False),
        (no("a", NoBidReason.DISABLED), False),
        (no("a", NoBidReason.CONTEXT_TOO_LONG), False),
    ],
)
def test_pain_8_a_query_waits_only_for_what_can_end_in_time(answer: object, waits: bool) -> None:
    desk = Desk(A)
    query_id = desk.ask()
    desk.gathered(answer)  # type: ignore[arg-type] # a NoBid
    assert desk.is_waiting(query_id) is waits


def test_the_requests_deadline_bounds_the_wait_too() -> None:
    desk = Desk(A)
    assert desk.decide(no("a", LIMITED, 1005.0), deadline=1004.0).error == RouteError.RATE_LIMITED


def test_a_rate_limit_is_asked_again_when_it_ends_with_one_timer_for_all() -> None:
    desk = Desk(A)
    for query_id in ("q1", "q2"):
        desk.ask(query_id=query_id)
        desk.gathered(no("a", LIMITED, 1000.5))
    assert len(desk.context.timers) == 1
    desk.context.fire(desk.actor)
    assert desk.context.now() == 1000.5
    assert asks(desk) == ["q1", "q2", "q1"]


@pytest.mark.parametrize("order", [(1000.3, 1000.6), (1000.6, 1000.3)])
def test_of_several_times_at_which_a_refusal_ends_the_earliest_wakes_the_line(order: tuple[float, float]) -> None:
    """A small request may have what a large one has to wait for."""
    desk = Desk(A)
    for query_id, retry_at in zip(("q1", "q2"), order, strict=True):
        desk.ask(query_id=query_id)
        desk.gathered(no("a", LIMITED, retry_at))
    desk.context.fire(desk.actor)
    assert desk.context.now() == 1000.3


def test_waiters_go_in_order_of_arrival_as_many_as_there_are_slots() -> None:
    desk = Desk(A)
    waiting(desk, "q1", "q2", "q3")
    desk.give(CapacityFreed("a", 2))
    assert asks(desk)[3:] == ["q1", "q2"]


def test_two_turns_at_once_do_not_wait_for_each_other() -> None:
    desk = Desk(A)
    waiting(desk, "q1", "q2")
    desk.give(CapacityFreed("a", 2))
    desk.gathered(bid("a", room=2), fan=-1)
    assert chain(desk.plan("q2")) == ["a"]
    desk.gathered(bid("a", room=2), fan=-2)
    assert chain(desk.plan("q1")) == ["a"]


def test_a_retry_keeps_its_place() -> None:
    desk = Desk(A)
    desk.context.advance(1.0)
    waiting(desk, "young")
    desk.ask(query_id="old", arrived_at=1000.0)
    desk.gathered(full("a"))
    desk.give(CapacityFreed("a", 1))
    assert asks(desk)[-1] == "old"


def test_a_turn_that_ends_elsewhere_is_passed_on() -> None:
    desk = Desk(A, B, strategy="first")
    for query_id in ("q1", "q2"):
        desk.ask(query_id=query_id)
        desk.gathered(full("a"), full("b"))
    desk.give(CapacityFreed("b", 1))
    desk.gathered(bid("a"), bid("b"))
    assert chain(desk.plan("q1"))[0] == "a"
    assert asks(desk) == ["q1", "q2", "q1", "q2"]


def test_the_turn_goes_on_when_the_grant_is_seen_and_stops_at_a_provider_that_is_full_again() -> None:
    desk = Desk(A)
    waiting(desk, "q1", "q2", "q3")
    desk.give(CapacityFreed("a", 1))
    desk.gathered(bid("a"))
    assert asks(desk)[3:] == ["q1"]
    desk.give(Claimed("q1", "a", True))
    assert asks(desk)[3:] == ["q1", "q2"]
    desk.gathered(full("a"))
    assert asks(desk)[3:] == ["q1", "q2"]
    assert desk.is_waiting("q2")


def test_a_newcomer_does_not_overtake_those_who_wait_for_the_same_provider() -> None:
    desk = Desk(A)
    waiting(desk, "q1")
    desk.ask(query_id="new")
    desk.gathered(bid("a"))
    assert desk.is_waiting("new")
    desk.give(CapacityFreed("a", 5))
    assert asks(desk)[2:] == ["q1", "new"]
    desk.gathered(bid("a"), fan=-2)
    desk.gathered(bid("a"))
    assert chain(desk.plan("q1")) == chain(desk.plan("new")) == ["a"]


def test_a_newcomer_may_take_a_provider_nobody_waits_for() -> None:
    desk = Desk(A, provider("b", "m", "n"))
    waiting(desk, "q1")
    desk.ask("n", query_id="other")
    desk.gathered(bid("b"))
    assert chain(desk.plan("other")) == ["b"]
    desk.ask(query_id="new")
    desk.gathered(bid("a"), bid("b"))
    plan = desk.plan("new")
    assert chain(plan) == ["b"]
    assert desk.candidates(plan.decision_id)["a"].reason == "waiters_ahead"


def test_explain_tells_of_the_bids_though_others_wait() -> None:
    desk = Desk(A)
    waiting(desk, "q1")
    assert chain(desk.decide(bid("a"), query_id="explain-1", may_wait=False)) == ["a"]


def test_capacity_freed_while_the_round_was_out_is_not_lost() -> None:
    desk = Desk(A)
    query_id = desk.ask()
    desk.give(CapacityFreed("a", 1))
    desk.gathered(full("a"))
    assert asks(desk) == [query_id, query_id]
    desk.gathered(bid("a"))
    assert chain(desk.plan(query_id)) == ["a"]


def test_a_full_queue_says_so() -> None:
    desk = Desk(A, queue_max_length=1)
    waiting(desk, "q1")
    answer = desk.decide(full("a"))
    assert answer.error == RouteError.QUEUE_FULL
    assert answer.retry_after_s is not None


def test_a_queue_of_no_length_or_no_time_keeps_nobody() -> None:
    assert Desk(A, queue_max_length=0).decide(full("a")).error == RouteError.QUEUE_FULL
    assert Desk(A, queue_max_wait_s=0.0).decide(full("a")).error == RouteError.AT_CAPACITY


def test_who_has_waited_long_enough_is_told_why_and_when_to_come_back() -> None:
    desk = Desk(A, queue_max_wait_s=0.6)
    waiting(desk, "q1")
    desk.context.fire(desk.actor)
    answer = desk.refusal("q1")
    assert desk.context.now() == 1000.6
    assert answer.error == RouteError.AT_CAPACITY
    # In all that time nobody has left the line, which is what there is to know.
    assert answer.retry_after_s == pytest.approx(0.6)
    assert not desk.context.timers


def test_time_over_in_the_middle_of_a_round_is_answered_at_its_end() -> None:
    desk = Desk(A, queue_max_wait_s=0.6)
    waiting(desk, "q1")
    desk.give(CapacityFreed("a", 1))
    desk.context.advance(0.7)
    desk.gathered(full("a"))
    assert desk.refusal("q1").error == RouteError.AT_CAPACITY


def test_pain_17_a_client_that_leaves_gives_up_its_place() -> None:
    desk = Desk(A)
    waiting(desk, "q1", "q2")
    desk.give(Withdraw("q1"))
    desk.give(CapacityFreed("a", 1))
    assert asks(desk)[-1] == "q2"
    assert desk.give(GetRouterStats())[0].failed == 0


def test_pain_17_a_client_that_leaves_in_its_turn_passes_it_on() -> None:
    desk = Desk(A)
    waiting(desk, "q1", "q2")
    desk.give(CapacityFreed("a", 1))
    desk.give(Withdraw("q1"))
    assert asks(desk)[-1] == "q2"
    desk.gathered(bid("a"), fan=-2)
    desk.gathered(bid("a"))
    assert chain(desk.plan("q2")) == ["a"]


def test_a_client_that_leaves_before_its_first_round_is_home_never_waits() -> None:
    desk = Desk(A)
    desk.ask(query_id="q1")
    desk.give(Withdraw("q1"))
    desk.gathered(full("a"))
    assert desk.give(GetRouterStats())[0].waiting == 0
    assert len(desk.slot("q1").answers) == 1


def test_after_as_many_refusals_as_candidates_all_are_asked_again_once_at_once() -> None:
    desk = Desk(A, B)
    desk.decide(bid("a"), bid("b"), query_id="q")
    rounds = len(desk.context.fans)
    desk.ask(query_id="q", refused=("a", "b"))
    assert (len(desk.context.fans), desk.asked()) == (rounds + 1, ("a", "b"))
    desk.gathered(full("a"), full("b"))
    assert desk.is_waiting("q")


def test_after_that_a_back_off_keeps_a_provider_that_bids_and_refuses_from_spinning() -> None:
    desk = Desk(A)
    desk.decide(bid("a"), query_id="q")
    desk.ask(query_id="q", refused=("a",))
    desk.gathered(bid("a"))
    rounds = len(desk.context.fans)
    desk.ask(query_id="q", refused=("a",))
    assert len(desk.context.fans) == rounds
    assert desk.is_waiting("q")
    desk.context.fire(desk.actor)
    assert desk.context.now() == pytest.approx(1000.1)
    assert desk.asked() == ("a",)
    desk.gathered(bid("a"))
    assert chain(desk.plan("q")) == ["a"]


def test_a_provider_that_forgot_its_debt_is_asked_again_after_a_second() -> None:
    desk = Desk(A)
    waiting(desk, "q1")
    desk.context.fire(desk.actor)
    assert desk.context.now() == 1001.0
    desk.gathered(bid("a"))
    assert chain(desk.plan("q1")) == ["a"]


def test_pain_8_a_circuit_that_may_close_is_waited_for() -> None:
    desk = Desk(A)
    desk.ask(query_id="q1")
    desk.gathered(no("a", NoBidReason.CIRCUIT_OPEN, 1000.8))
    desk.context.fire(desk.actor)
    assert desk.context.now() == 1000.8
    desk.gathered(bid("a", trial=True))
    assert chain(desk.plan("q1")) == ["a"]


def test_a_cheap_provider_that_is_full_is_waited_for_though_a_dear_one_bids() -> None:
    desk = Desk(A, B)
    query_id = desk.ask(profile=RequestProfile("m", hints=Hints(max_cost_usd=0.1)))
    desk.gathered(full("a"), bid("b", cost_usd=9.0))
    assert desk.is_waiting(query_id)
    desk.give(CapacityFreed("a", 1))
    desk.gathered(bid("a", cost_usd=0.01), bid("b", cost_usd=9.0))
    assert chain(desk.plan(query_id)) == ["a"]


def test_a_new_generation_asks_anew_for_those_who_wait() -> None:
    desk = Desk(A)
    waiting(desk, "q1", "q2")
    desk.give(Configured(snapshot(A, B, generation=2)))
    assert asks(desk)[2:] == ["q1", "q2"]
    assert desk.asked() == ("a", "b")
    desk.gathered(full("a"), bid("b"), fan=-2)
    plan = desk.plan("q1")
    assert (plan.generation, chain(plan)) == (2, ["b"])


def test_a_generation_that_is_told_again_asks_nobody_anew() -> None:
    desk = Desk(A)
    waiting(desk, "q1", "q2")
    rounds = len(desk.context.fans)
    desk.give(Configured(snapshot(A, generation=1)))
    assert len(desk.context.fans) == rounds
    assert desk.is_waiting("q1")
    assert desk.is_waiting("q2")


def test_a_new_generation_without_the_model_ends_the_wait() -> None:
    desk = Desk(A)
    waiting(desk, "q1", "q2")
    desk.give(CapacityFreed("a", 1))
    desk.give(Configured(snapshot(provider("a", "other"), generation=2)))
    assert desk.refusal("q2").error == RouteError.MODEL_NOT_SUPPORTED
    desk.gathered(full("a"), fan=-1)
    assert desk.refusal("q1").error == RouteError.MODEL_NOT_SUPPORTED


def test_capacity_of_unknown_providers_is_not_noted() -> None:
    desk = Desk(A)
    for number in range(100):
        desk.give(CapacityFreed(f"ghost{number}", 1))
    assert not desk.actor._queue.freed


def test_pain_1_after_five_thousand_queries_nothing_has_grown() -> None:
    desk = Desk(A, provider("any", takes_any=True), default="any", decisions_kept=10)
    for number in range(5000):
        query_id = f"q{number}"
        desk.actor.handle(RouteQuery(query_id, RequestProfile(f"typo-{number}"), 2000.0, 1000.0), desk.context)
        desk.gathered_quickly(bid("any"))
        desk.actor.handle(CallEnded("x", query_id, "any", "m", Outcome.SUCCESS, True, 1.0), desk.context)
    actor = desk.actor
    assert actor.invariant() is None
    assert not actor._open
    assert not actor._rounds
    assert len(actor._plans) == 0
    assert len(actor._memories) == 4096
    assert len(actor._record._log) == 10
    assert len(desk.context.timers) == 1
