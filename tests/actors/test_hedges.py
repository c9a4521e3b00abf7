"""When a second call may be asked for, where it goes, and who is explored: the router alone, bids by hand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.router.exploring import COPY_INTERVAL, INTERVAL_MIN_S, LEAD_INTERVAL
from actors.router.hedging import LEAST_S
from actors.router.shares import Share
from messages.calls import AttemptKind, CallEnded, Outcome
from messages.control import Configured, ExploreSpec, FailoverSpec, HedgeSpec
from messages.policy import Action, ActionKind, Condition, ConditionKind, Rule
from messages.routing import (
    Bid,
    Hints,
    NoBid,
    NoBidReason,
    NoRoute,
    RequestProfile,
    RouteError,
    RoutePlan,
    Withdraw,
    hedge_query_id,
)
from tests.actors.router_kit import Desk, bid, chain, full, no, provider, snapshot

SHARED = HedgeSpec(max_share=1.0)


def desk(names: str = "abc", **config: Any) -> Desk:
    return Desk(*(provider(name, "m") for name in names), **({"hedge": SHARED} | config))


def quick(name: str = "a", **fields: Any) -> Bid:
    return bid(name, **({"expected_s": 0.3, "overdue_s": 0.8, "overdue_early_s": 0.5} | fields))


def slow(name: str = "b", **fields: Any) -> Bid:
    return bid(name, **({"expected_s": 0.6, "overdue_s": 2.0, "overdue_early_s": 1.0} | fields))


def hedged(world: Desk, *answers: Bid | NoBid, tried: tuple[str, ...] = ("a",), **fields: Any) -> RoutePlan | NoRoute:
    """A plan, and then the answer to the wish for a call beside it."""
    world.decide(quick(), slow("b"), slow("c"), query_id="q")
    answer = world.decide(*answers, query_id=hedge_query_id("q", 1), tried=tried, may_wait=False, hedge=True, **fields)
    assert isinstance(answer, RoutePlan | NoRoute)
    return answer


# When.


@pytest.mark.parametrize(
    ("runner_up_s", "after_s"),
    [(5.0, 0.8), (0.7, 0.7), (0.4, 0.5)],
    ids=["the p99 where nobody is faster", "when the runner-up would be done", "but not before the p95"],
)
def test_a_call_is_overdue_by_its_own_spread_or_earlier_where_the_runner_up_would_be_faster(
    runner_up_s: float, after_s: float
) -> None:
    plan = desk("ab").decide(quick(), slow(expected_s=runner_up_s))

    assert plan.hedge_after_s == after_s


def test_the_price_of_the_runner_up_counts_as_time() -> None:
    assert desk("ab").decide(quick(), slow(expected_s=0.4, cost_usd=0.003)).hedge_after_s == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("hedge", "after_s"),
    [
        (HedgeSpec(after="fixed", after_s=3.0), 3.0),
        (HedgeSpec(after="p95"), 0.45),
        (HedgeSpec(enabled=False), None),
        (HedgeSpec(max_share=0.0), None),
    ],
)
def test_the_configuration_may_say_when_or_never(hedge: HedgeSpec, after_s: float | None) -> None:
    assert desk("ab", hedge=hedge).decide(quick(latency_p95_s=0.45), slow()).hedge_after_s == after_s


def test_no_time_is_so_short_that_every_call_is_overdue() -> None:
    assert desk("ab", hedge=HedgeSpec(after="p95")).decide(quick(latency_p95_s=0.0001), slow()).hedge_after_s == LEAST_S


def test_who_is_alone_is_never_overdue() -> None:
    assert desk("a").decide(quick()).hedge_after_s is None


@pytest.mark.parametrize(
    "rival",
    [full("b"), no("b", NoBidReason.RATE_LIMITED, retry_at=3.0), no("b", NoBidReason.CIRCUIT_OPEN, retry_at=3.0)],
    ids=["at capacity", "at its rate limit", "behind its circuit"],
)
def test_a_rival_that_could_not_take_the_call_may_be_free_when_it_is_overdue(rival: NoBid) -> None:
    world = desk("ab")
    plan = world.decide(quick(), rival, query_id="q")
    assert (chain(plan), plan.hedge_after_s) == (["a"], 0.8)

    hedge = world.decide(slow("b"), query_id=hedge_query_id("q", 1), tried=("a",), may_wait=False, hedge=True)
    assert chain(hedge) == ["b"]


def test_a_rival_that_refused_the_award_before_may_be_free_when_the_call_is_overdue() -> None:
    assert desk("ab").decide(quick(), refused=("b",)).hedge_after_s == 0.8


def test_rivals_beyond_the_fan_out_may_be_asked_when_the_call_is_overdue() -> None:
    assert desk("ab", fanout=1, strategy="first").decide(quick()).hedge_after_s == 0.8


@pytest.mark.parametrize(
    "rival",
    [
        no("b", NoBidReason.MISSING_CAPABILITY),
        no("b", NoBidReason.AUTH_FAILED),
        no("b", NoBidReason.RATE_LIMITED, retry_at=9000.0),
        slow("b", cost_usd=2.0),
    ],
    ids=["lacks what is needed", "with a bad key", "limited beyond the deadline", "over the ceiling of the request"],
)
def test_who_can_never_take_the_call_is_no_rival(rival: Bid | NoBid) -> None:
    profile = RequestProfile("m", hints=Hints(max_cost_usd=1.0))

    assert desk("ab").decide(quick(), rival, profile=profile).hedge_after_s is None


def test_who_has_failed_the_request_is_no_rival() -> None:
    assert desk("ab").decide(quick(), tried=("b",)).hedge_after_s is None


# Where.


def test_a_hedge_goes_to_the_best_of_those_not_tried_and_is_noted_in_the_record_of_its_request() -> None:
    world = desk()
    plan = hedged(world, slow("b"), slow("c", expected_s=0.4))

    assert isinstance(plan, RoutePlan)
    assert chain(plan) == ["c", "b"]
    assert world.asked() == ("b", "c")
    assert world.plan("q").decision_id == plan.decision_id


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ((slow("b", tight=True), slow("c", tight=True)), "over 80 % of a limit is used"),
        ((slow("b", trial=True, room=1), slow("c", room=0)), "on trial, and full"),
        ((slow("b", healthy=False), full("c")), "unhealthy, and at capacity"),
        ((slow("b", cost_usd=2.0), slow("c", cost_usd=None)), "over the ceiling of the request"),
    ],
)
def test_no_hedge_where_nobody_has_room_to_spare(answers: tuple[Bid | NoBid, ...], why: str) -> None:
    profile = RequestProfile("m", hints=Hints(max_cost_usd=1.0))
    answer = hedged(desk(), *answers, profile=profile)

    assert isinstance(answer, NoRoute), why
    assert answer.error is RouteError.NO_HEDGE


def test_no_hedge_where_two_handlers_have_fallen_over_the_request_wherever_they_did() -> None:
    fallen = no("b", NoBidReason.CRASHED)

    assert isinstance(hedged(desk(), fallen, slow("c")), RoutePlan)
    answer = hedged(desk(), fallen, slow("c"), crashed=("award q/1",))

    assert isinstance(answer, NoRoute)
    assert (answer.error, answer.crashed) == (RouteError.NO_HEDGE, ("b",))


def test_no_hedge_while_requests_wait_in_the_queue() -> None:
    world = desk()
    world.decide(quick(), slow("b"), slow("c"), query_id="q")
    waiting = world.ask(query_id="waits")
    world.gathered(full("a"), full("b"), full("c"))
    assert world.is_waiting(waiting)

    answer = world.decide(slow("b"), slow("c"), query_id="q+1", tried=("a",), may_wait=False, hedge=True)
    assert isinstance(answer, NoRoute)


def test_a_hedge_is_no_request_of_its_own_in_the_statistics() -> None:
    world = desk()
    hedged(world, slow("b"), slow("c"))

    assert world.actor._record.total == 1


# The shares.


@given(st.sampled_from([0.01, 0.03, 0.05, 0.5]), st.lists(st.booleans(), max_size=400))
def test_a_share_is_never_overdrawn(share: float, wishes: list[bool]) -> None:
    bucket = Share(10.0)
    bucket.change(share, 0)
    paid = 0
    for requests, wish in enumerate(wishes, 1):
        if wish and bucket.may_pay(requests):
            bucket.pay()
            paid += 1
        assert paid <= share * requests + 1e-6


def test_another_share_holds_from_now_on_and_what_was_earned_stays() -> None:
    world = desk("abc", hedge=HedgeSpec(max_share=0.05))
    for _ in range(40):
        world.decide(quick(), slow("b"), slow("c"))
    specs = [provider(name, "m") for name in "abc"]
    world.give(Configured(snapshot(*specs, generation=2, hedge=SHARED)))

    hedges = [isinstance(hedged(world, slow("b"), slow("c")), RoutePlan) for _ in range(2)]
    assert hedges == [True, True], "two that were earned before, and two since"
    world.give(Configured(snapshot(*specs, generation=3, hedge=HedgeSpec(max_share=0.001))))
    assert [isinstance(hedged(world, slow("b"), slow("c")), RoutePlan) for _ in range(3)] == [True, True, False]


def test_who_left_the_configuration_is_forgotten() -> None:
    world = desk("abc", explore=ExploreSpec(max_share=1.0), strategy="least_latency")
    for _ in range(3):
        world.context.advance(61.0)
        world.decide(slow("a", samples=0, exploring=2), slow("b", latency_p50_s=0.1), slow("c", samples=0, exploring=2))
    world.give(Configured(snapshot(provider("b", "m"), generation=2)))

    exploring = world.actor._exploring
    assert [sorted(kept) for kept in (exploring._used, exploring._asked, exploring._out)] == [["b"], [], []]


def test_who_pays_without_looking_is_told() -> None:
    with pytest.raises(ValueError, match="cannot pay"):
        Share(1.0).pay()


def test_retries_and_hedges_earn_nothing() -> None:
    world = desk(hedge=HedgeSpec(max_share=0.5))
    world.decide(quick(), slow("b"), slow("c"), query_id="q")
    world.decide(slow("b"), slow("c"), query_id="q", tried=("a",))

    answer = world.decide(slow("c"), query_id="q+1", tried=("a", "b"), may_wait=False, hedge=True)
    assert isinstance(answer, NoRoute), "half a request is no hedge yet"


# Exploring.

EXPLORE = ExploreSpec(max_share=1.0)


def shut(name: str, **fields: Any) -> NoBid:
    """A provider with an open circuit and what it would offer."""
    return NoBid(name, NoBidReason.CIRCUIT_OPEN, None, "", quick(name, **({"trial": True, "failure_p": 0.9} | fields)))


def explored(plan: RoutePlan) -> str:
    return plan.explore.provider if plan.explore is not None else ""


@pytest.mark.parametrize(
    ("other", "who"),
    [
        (quick("a", healthy=False), "a"),
        (quick("a", expected_s=3.0, slowness=20.0), "a"),
        (slow("a", samples=0, exploring=2), "a"),
        (slow("a", unheard_s=11.0), "a"),
        (slow("a"), ""),
        (slow("a", unheard_s=11.0, tight=True), ""),
        (slow("a", unheard_s=11.0, room=0), ""),
        (shut("a", failure_loss_s=2.0), "a"),
        (shut("a", failure_loss_s=2.0, expected_s=0.9, unheard_s=1.0), ""),
    ],
    ids=[
        "unhealthy", "slower than it was", "never tried", "unheard", "nothing special", "unheard and over 80 %",
        "unheard and full", "benched and slow to fail", "benched and no better",
    ],
)  # fmt: skip
def test_a_copy_goes_to_who_needs_to_be_heard_of(other: Bid | NoBid, who: str) -> None:
    world = desk("ab", explore=EXPLORE, strategy="least_latency")

    assert explored(world.decide(other, slow("b", latency_p50_s=0.1))) == who


def test_the_benched_come_before_the_unknown_and_those_before_the_unheard() -> None:
    world = desk("abcd", explore=EXPLORE, strategy="least_latency")
    chosen = slow("a", latency_p50_s=0.01)
    bids = chosen, slow("b", unheard_s=20.0), slow("c", samples=0, exploring=2), quick("d", healthy=False)
    found = []
    for _ in range(4):
        world.context.advance(0.1)
        found.append(explored(world.decide(*bids)))

    assert found == ["d", "c", "b", ""], "each has its copy out"


def ended(world: Desk, name: str, outcome: Outcome) -> None:
    world.give(CallEnded("p", "q", name, "m", outcome, True, 0.1, kind=AttemptKind.EXPLORE))


def test_the_longer_a_provider_is_away_the_rarer_it_is_looked_for() -> None:
    world = desk("ab", explore=EXPLORE)
    world.invariant_every = 100
    gaps = []
    world.decide(quick("a"), slow("b"))
    last = away_since = world.context.now()
    for _ in range(6000):
        world.context.advance(0.05)
        if explored(world.decide(shut("a", failure_loss_s=2.0), slow("b"))) == "a":
            ended(world, "a", Outcome.FAILED)
            now = world.context.now()
            gaps.append((now, now - last))
            last = now
    for now, gap in gaps[1:]:
        assert gap == pytest.approx(max(INTERVAL_MIN_S, COPY_INTERVAL * (now - away_since)), abs=0.12)


def test_good_news_of_who_was_away_deserves_a_second_look_at_once() -> None:
    world = desk("ab", explore=EXPLORE)
    bids = quick("a", expected_s=3.0, slowness=20.0), slow("b")
    assert explored(world.decide(*bids)) == "a"
    world.context.advance(0.1)
    assert explored(world.decide(*bids)) == "", "one at a time"
    ended(world, "a", Outcome.SUCCESS)
    world.context.advance(0.1)

    assert explored(world.decide(*bids)) == "a"


def test_who_fails_at_once_for_next_to_nothing_leads_a_real_request_and_costs_no_copy() -> None:
    world = desk("ab", explore=ExploreSpec(max_share=0.001))
    world.decide(quick("a"), slow("b"))
    world.context.advance(10.0)
    plan = world.decide(shut("a", failure_loss_s=0.01), slow("b"))

    assert (chain(plan), plan.is_led, plan.explore) == (["a", "b"], True, None)
    assert plan.hedge_after_s is not None
    ended(world, "a", Outcome.FAILED)
    world.context.advance(10.0 * LEAD_INTERVAL)
    assert chain(world.decide(shut("a", failure_loss_s=0.01), slow("b"))) == ["b"], "not so soon"


@pytest.mark.parametrize(
    ("offer", "config", "why"),
    [
        ({"failure_loss_s": 2.0}, {}, "it takes its time to fail"),
        ({"cut_p": 0.5}, {}, "it breaks streams"),
        ({"expected_s": 0.9}, {}, "it is no better"),
        ({"samples": 0}, {}, "it never answered"),
        ({}, {"failover": FailoverSpec(max_attempts=1)}, "there is no second attempt"),
        ({}, {"explore": ExploreSpec(enabled=False)}, "exploration is off"),
        ({}, {"strategy": "first"}, "the strategy does not choose by measurements"),
    ],
)
def test_nobody_leads_where(offer: dict[str, Any], config: dict[str, Any], why: str) -> None:
    world = desk("ab", **({"explore": ExploreSpec(max_share=0.001)} | config))
    answers = shut("a", **({"failure_loss_s": 0.01} | offer)), slow("b")
    plan = world.decide(*answers, profile=RequestProfile("m", stream=True))

    assert (chain(plan), plan.is_led) == (["b"], False), why


def test_who_is_unhealthy_and_fails_cheaply_leads_too_and_stands_in_the_plan_once() -> None:
    plan = desk("ab", explore=ExploreSpec(max_share=0.001)).decide(quick("a", healthy=False, failure_p=0.3), slow("b"))

    assert (chain(plan), plan.is_led) == (["a", "b"], True)


def test_a_request_that_was_tried_before_explores_nobody() -> None:
    plan = desk("abc", explore=EXPLORE).decide(shut("a", failure_loss_s=0.01), slow("b"), tried=("c",))

    assert not plan.is_led
    assert plan.explore is None


@pytest.mark.parametrize("share", [0.03, 0.2])
def test_copies_stay_within_their_share_of_requests_however_many_are_due(share: float) -> None:
    world = desk("ab", explore=ExploreSpec(max_share=share), strategy="least_latency")
    copies = 0
    for requests in range(1, 501):
        world.context.advance(61.0)  # Longer than any interval: somebody is always due.
        if explored(world.decide(slow("a", samples=0, exploring=2), slow("b", latency_p50_s=0.1))):
            copies += 1
            ended(world, "a", Outcome.FAILED)
        assert copies <= share * requests + 1e-6

    assert copies == pytest.approx(share * 500, abs=1.0), "nor fewer, where there is need"


@pytest.mark.parametrize(
    "other",
    [slow("c", samples=0, exploring=2), shut("c", failure_loss_s=0.01)],
    ids=["by a copy", "by a lead"],
)
def test_nobody_is_explored_while_requests_wait_in_the_queue(other: Bid | NoBid) -> None:
    world = desk("abc", explore=EXPLORE)
    waiting = world.ask(profile=RequestProfile("m", hints=Hints(exclude=("b", "c"))))
    world.gathered(full("a"))
    assert world.is_waiting(waiting)

    plan = world.decide(full("a"), slow("b"), other)
    assert (chain(plan)[0], plan.is_led, explored(plan)) == ("b", False, "")

    world.give(Withdraw(waiting))
    world.context.advance(0.1)
    plan = world.decide(full("a"), slow("b"), other)
    assert plan.is_led or explored(plan) == "c", "it was the queue that forbade it"


def test_large_requests_are_not_copied() -> None:
    world = desk("ab", explore=EXPLORE, strategy="least_latency")
    bids = slow("a", unheard_s=20.0), slow("b", latency_p50_s=0.1)
    for _ in range(10):
        world.decide(slow("a"), slow("b", latency_p50_s=0.1), profile=RequestProfile("m", prompt_tokens=100))
    world.context.advance(0.1)
    assert explored(world.decide(*bids, profile=RequestProfile("m", prompt_tokens=1000))) == ""
    world.context.advance(0.1)

    assert explored(world.decide(*bids, profile=RequestProfile("m", prompt_tokens=100))) == "a"


@pytest.mark.parametrize("lost_s", [0.01, 2.0], ids=["by a lead", "by a copy"])
def test_who_is_over_the_ceiling_of_the_request_is_not_explored_from_behind_its_circuit(lost_s: float) -> None:
    for ceiling_usd, is_explored in ((0.5, False), (1.5, True)):
        # A dollar is worth no time, so that it is not the price as such that decides.
        world = desk("ab", explore=EXPLORE, seconds_per_usd=0.0)
        profile = RequestProfile("m", hints=Hints(max_cost_usd=ceiling_usd))
        plan = world.decide(shut("a", failure_loss_s=lost_s, cost_usd=1.0), slow("b"), profile=profile)

        assert (plan.is_led or explored(plan) == "a") is is_explored


TO_B = Rule("to-b", then=(Action(ActionKind.PROVIDERS, ("b",)),))
QUICK = Condition(ConditionKind.LATENCY_UNDER, number=500.0)
ONLY_QUICK = Rule("quick", when=QUICK, then=(Action(ActionKind.STRATEGY, ("least_latency",)),), allow_fallback=False)


@pytest.mark.parametrize(
    ("rule", "other"),
    [
        (TO_B, slow("a", unheard_s=20.0)),
        (TO_B, shut("a", failure_loss_s=0.01)),
        (TO_B, shut("a", failure_loss_s=2.0)),
        (ONLY_QUICK, shut("a", failure_loss_s=0.01, latency_ewma_s=0.9)),
    ],
    ids=["unheard and not named", "a lead not named", "benched and not named", "benched and not what the rule wants"],
)
def test_who_is_outside_of_the_rule_of_the_request_is_not_explored(rule: Rule, other: Bid | NoBid) -> None:
    chosen = slow("b", latency_p50_s=0.1, latency_ewma_s=0.3)
    for rules, is_explored in (((), True), ((rule,), False)):
        world = desk("ab", explore=EXPLORE, strategy="least_latency", rules=rules)
        plan = world.decide(other, chosen)

        assert (plan.is_led or explored(plan) == "a") is is_explored
