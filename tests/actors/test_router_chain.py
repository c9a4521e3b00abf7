"""Where requests fail over to: a pool's chain, and limits that are no reason to (FEATURES B6, D8)."""

from typing import Any

import pytest

from messages.control import FailoverSpec
from messages.policy import Action, ActionKind, ChainStep, Condition, ConditionKind, PoolSpec, Rule, TenantSpec
from messages.routing import Bid, Exclusion, Hints, NoBid, NoBidReason, RequestProfile, RouteError, RoutePlan
from tests.actors.router_kit import Desk, bid, chain, full, no, provider

STEPS = (ChainStep(("a",)), ChainStep(("b", "c"), "cost"), ChainStep())
CHAIN = PoolSpec("m", chain=STEPS)
CLOSED = PoolSpec("m", chain=STEPS[:2])
STAYS = FailoverSpec(on_rate_limit=False)


def desk(*names: str, pool: PoolSpec = CHAIN, **config: Any) -> Desk:
    specs = [provider(name, "m", **config.pop(name, {})) for name in names or "dcba"]
    return Desk(*specs, pools=(pool,), **({"strategy": "first"} | config))


def planned(of: Desk, *answers: Bid | NoBid, **fields: Any) -> RoutePlan:
    plan = of.decide(*answers, **fields)
    assert isinstance(plan, RoutePlan), plan
    return plan


def limited(name: str, retry_at: float = 5000.0) -> NoBid:
    return no(name, NoBidReason.RATE_LIMITED, retry_at)


BIDS = (bid("d"), bid("c", cost_usd=0.1), bid("b", cost_usd=0.2), bid("a"))


def test_D8_a_chain_goes_before_the_order_of_the_file_and_each_step_chooses_by_its_own_strategy() -> None:
    plan = planned(desk(), *BIDS)

    assert chain(plan) == ["a", "c", "b", "d"]
    assert plan.strategy == "first"


def test_D8_a_pools_chain_holds_under_an_alias_and_after_a_redirect() -> None:
    rules = [Rule("to-m", when=Condition(ConditionKind.MODEL, names=("old",)), then=(Action(ActionKind.REDIRECT, ("m",)),))]
    of = desk(aliases={"mine": "m"}, rules=rules, default="d", d={"takes_any": True})

    assert chain(planned(of, *BIDS, model="mine")) == ["a", "c", "b", "d"]
    assert chain(planned(of, *BIDS, model="old")) == ["a", "c", "b", "d"]


def test_D8_who_cannot_take_the_call_is_passed_over_and_the_plan_names_the_strategy_that_chose() -> None:
    plan = planned(desk(), *BIDS[:3], full("a"))

    assert (chain(plan), plan.strategy) == (["c", "b", "d"], "cost")


def test_D8_B5_a_fresh_choice_goes_on_along_the_chain_without_those_tried() -> None:
    assert chain(planned(desk(), *BIDS[:3], tried=("a",))) == ["c", "b", "d"]
    assert chain(planned(desk(), *BIDS[:1], tried=("a", "b", "c"))) == ["d"]


def test_D8_a_chain_without_any_ends_with_its_last_step() -> None:
    of = desk(pool=CLOSED)
    plan = planned(of, *BIDS[1:])

    assert of.asked() == ("c", "b", "a")
    assert chain(plan) == ["a", "c", "b"]
    assert of.candidates(plan.decision_id)["d"].reason == Exclusion.CHAIN


def test_a_pool_whose_chain_names_nobody_who_serves_it_refuses_and_says_why() -> None:
    of = desk("d", pool=CLOSED)
    query_id = of.ask()

    refusal = of.refusal(query_id)
    assert refusal.error is RouteError.ALL_FILTERED
    assert "in no step of the pool's failover chain" in refusal.detail


def test_unhealthy_providers_of_all_steps_come_after_the_healthy_ones() -> None:
    plan = planned(desk(), bid("d"), bid("c", healthy=False), bid("b"), bid("a", healthy=False))

    assert chain(plan) == ["b", "d", "a", "c"]


@pytest.mark.parametrize("who", ["request", "tenant", "rule"])
def test_a_strategy_that_somebody_narrower_names_chooses_within_the_steps_too(who: str) -> None:
    tenants = (TenantSpec("t", strategy="priority"),) if who == "tenant" else ()
    rules = (Rule("r", then=(Action(ActionKind.STRATEGY, ("priority",)),)),) if who == "rule" else ()
    of = desk(tenants=tenants, rules=rules)
    hints = Hints(strategy="priority" if who == "request" else "")
    bids = (bid("d"), bid("c", cost_usd=0.1), bid("b", cost_usd=0.2, priority=9), full("a"))
    plan = planned(of, *bids, profile=RequestProfile("m", tenant="t", hints=hints))

    assert (chain(plan), plan.strategy) == (["b", "c", "d"], "priority")


def test_a_preference_of_the_request_goes_before_the_chain() -> None:
    plan = planned(desk(), *BIDS, profile=RequestProfile("m", hints=Hints(prefer=("d",))))

    assert chain(plan)[0] == "d"


def test_the_candidates_of_a_rule_follow_the_chain_and_its_fallback_comes_after_them() -> None:
    rule = Rule("r", then=(Action(ActionKind.PROVIDERS, ("b", "d")),))
    plan = planned(desk(rules=(rule,)), *BIDS)

    assert chain(plan) == ["b", "d", "a", "c"]


def test_a_step_with_turns_takes_them_among_its_own_whoever_else_bids() -> None:
    pool = PoolSpec("m", chain=(ChainStep(("a", "b", "c"), "smooth_weighted_round_robin"), ChainStep()))
    of = desk("a", "b", "c", "d", pool=pool)
    won = ""
    for _ in range(12):
        bids = (bid("a", weight=2), bid("b"), bid("c"), bid("d", weight=50))
        won += chain(planned(of, *bids))[0]
        of.context.advance(2.0)

    assert {name: won.count(name) for name in "abcd"} == {"a": 6, "b": 3, "c": 3, "d": 0}


def test_of_more_candidates_than_are_asked_at_once_the_first_steps_are_asked_first() -> None:
    of = desk("d", "c", "b", "a", fanout=2)
    query_id = of.ask()
    assert of.asked() == ("c", "a")
    of.gathered(full("c"), full("a"))
    assert of.asked() == ("d", "b")
    of.gathered(bid("d"), bid("b"))

    assert chain(of.plan(query_id)) == ["b", "d"]


def test_a_weight_of_zero_counts_in_steps_that_weigh_and_in_no_others() -> None:
    steps = (ChainStep(("a",)), ChainStep(("b", "c"), "weighted_random"))
    of = desk("a", "b", "c", pool=PoolSpec("m", chain=steps), a={"weight": 0}, b={"weight": 0})
    plan = planned(of, bid("a", weight=0), bid("c"))

    assert chain(plan) == ["a", "c"]
    assert of.candidates(plan.decision_id)["b"].reason == Exclusion.WEIGHT_ZERO


# -- on_rate_limit


@pytest.mark.parametrize("strategy", ["first", "priority", "adaptive"])
def test_B6_as_a_rule_a_rate_limit_fails_over(strategy: str) -> None:
    of = Desk(provider("a", "m"), provider("b", "m"), strategy=strategy)

    assert chain(planned(of, limited("a"), bid("b"))) == ["b"]


@pytest.mark.parametrize("strategy", ["first", "priority"])
def test_B6_with_on_rate_limit_false_a_request_waits_for_the_limited_one_and_takes_no_later_one(strategy: str) -> None:
    of = Desk(provider("a", "m"), provider("b", "m"), strategy=strategy, failover=STAYS)
    query_id = of.ask()
    of.gathered(limited("a", of.context.now() + 0.5), bid("b"))
    assert of.is_waiting(query_id)

    of.context.fire(of.actor)
    of.gathered(bid("a"), bid("b"))
    assert chain(of.plan(query_id)) == ["a", "b"]


def test_B6_with_on_rate_limit_false_a_limit_that_lasts_too_long_is_answered_429_at_once() -> None:
    of = Desk(provider("a", "m"), provider("b", "m"), strategy="first", failover=STAYS)
    refusal = of.decide(limited("a"), bid("b"))

    assert refusal.error is RouteError.RATE_LIMITED
    assert refusal.retry_after_s == pytest.approx(5000.0 - of.context.now())
    assert "b comes after one that is at its rate limit" in refusal.detail


def test_with_on_rate_limit_false_one_that_comes_before_the_limited_one_takes_the_call() -> None:
    of = Desk(provider("a", "m", priority=1), provider("b", "m", priority=2), strategy="priority", failover=STAYS)

    assert chain(planned(of, limited("a"), bid("b", priority=2))) == ["b"]


def test_with_on_rate_limit_false_other_reasons_fail_over_as_ever() -> None:
    for why in (NoBidReason.CIRCUIT_OPEN, NoBidReason.AT_CAPACITY, NoBidReason.AUTH_FAILED):
        of = Desk(provider("a", "m"), provider("b", "m"), strategy="first", failover=STAYS)
        assert chain(planned(of, no("a", why, 1000.0), bid("b"))) == ["b"]


def test_with_on_rate_limit_false_a_strategy_without_an_order_takes_who_is_free() -> None:
    of = Desk(provider("a", "m"), provider("b", "m"), strategy="adaptive", failover=STAYS)

    assert chain(planned(of, limited("a"), bid("b"))) == ["b"]


def test_B6_with_on_rate_limit_false_a_step_of_a_chain_at_its_limit_is_not_left() -> None:
    of = desk(pool=PoolSpec("m", chain=(ChainStep(("a", "b")), ChainStep())), strategy="adaptive", failover=STAYS)

    assert of.decide(bid("d"), bid("c"), limited("b"), limited("a")).error is RouteError.RATE_LIMITED
    assert chain(planned(of, bid("d"), bid("c"), limited("b"), bid("a"))) == ["a"]
