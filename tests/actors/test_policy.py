"""The router's stages before the bids: tenant, pool rules, routing rules; and what they make of bids."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from actors.router.actor import RouterActor
from actors.router.strategies import STRATEGIES
from actors.router.strategies.base import Ask, Memory, Ranked, Strategy
from messages.control import Configured, ProviderSpec
from messages.decisions import Candidate, Decision, DecisionFound, GetDecision, GetRouterStats, StrategyFailed
from messages.policy import (
    CRITICAL,
    HIGH,
    LOW,
    NORMAL,
    Action,
    ActionKind,
    Condition,
    ConditionKind,
    PoolRule,
    PoolSpec,
    Rule,
    TenantSpec,
)
from messages.routing import Bid, CapacityFreed, Exclusion, Hints, NoBidReason, RequestProfile, RouteError
from tests.actors.router_kit import Desk, bid, chain, full, no, provider, snapshot

A, B, C = provider("a", "m"), provider("b", "m"), provider("c", "m", "cheap")
ALL = (bid("a"), bid("b"), bid("c"))
TOOLS = Condition(ConditionKind.HAS_TOOLS)


def model_is(*names: str) -> Condition:
    return Condition(ConditionKind.MODEL, names=names)


def tenant_is(*names: str) -> Condition:
    return Condition(ConditionKind.TENANT, names=names)


def to(*names: str) -> Action:
    return Action(ActionKind.PROVIDERS, names)


def by(strategy: str) -> Action:
    return Action(ActionKind.STRATEGY, (strategy,))


def redirect(model: str) -> Action:
    return Action(ActionKind.REDIRECT, (model,))


def reject(reason: str) -> Action:
    return Action(ActionKind.REJECT, (reason,))


def desk(*, strategy: str = "first", **config: Any) -> Desk:
    return Desk(A, B, C, strategy=strategy, **config)


def priced(spec: ProviderSpec, input_price: float, output_price: float) -> ProviderSpec:
    models = tuple(replace(model, input_price=input_price, output_price=output_price) for model in spec.models)
    return replace(spec, models=models)


def asking(**fields: Any) -> RequestProfile:
    return RequestProfile(**{"model": "m", **fields})


def record(at: Desk, decision_id: str) -> Decision:
    (found,) = at.give(GetDecision(decision_id))
    assert isinstance(found, DecisionFound)
    assert found.decision is not None
    return found.decision


def why(decision: Decision) -> dict[str, tuple[str, str]]:
    """Stage and reason of those left out."""
    return {one.provider: (one.stage, one.reason) for one in decision.candidates if one.reason}


# -- tenants


def test_D2_a_tenant_gets_only_its_allowed_providers_and_the_record_says_so() -> None:
    router = desk(tenants=[TenantSpec("acme", allowed_providers=("b",))])
    plan = router.decide(bid("b"), profile=asking(tenant="acme"))

    assert router.asked() == ("b",)
    assert chain(plan) == ["b"]
    assert why(record(router, plan.decision_id)) == {"a": ("tenant", "tenant"), "c": ("tenant", "tenant")}


def test_D2_no_allowed_provider_at_all_filters_everybody() -> None:
    router = desk(tenants=[TenantSpec("acme", allowed_providers=())])
    refusal = router.refusal(router.ask(profile=asking(tenant="acme")))

    assert refusal.error is RouteError.ALL_FILTERED
    assert "a is not allowed to the tenant" in refusal.detail


def test_D2_other_tenants_and_none_are_free() -> None:
    router = desk(tenants=[TenantSpec("acme", allowed_providers=("b",))])
    for tenant in ("", "umbrella"):
        assert chain(router.decide(*ALL, profile=asking(tenant=tenant))) == ["a", "b", "c"]


def test_D2_preferred_providers_come_first_in_their_order_and_are_no_cage() -> None:
    router = desk(tenants=[TenantSpec("acme", preferred_providers=("c", "b"))])

    assert chain(router.decide(*ALL, profile=asking(tenant="acme"))) == ["c", "b", "a"]
    assert chain(router.decide(bid("a"), bid("b"), full("c"), profile=asking(tenant="acme"))) == ["b", "a"]
    named = asking(tenant="acme", hints=Hints(prefer=("a",)))
    assert chain(router.decide(*ALL, profile=named)) == ["a", "c", "b"]


def test_D9_several_preferred_providers_come_first_in_their_order_before_the_tenants_and_are_no_cage() -> None:
    router = desk(tenants=[TenantSpec("acme", preferred_providers=("a", "b"))])
    named = asking(tenant="acme", hints=Hints(prefer=("c", "nobody", "b")))

    assert chain(router.decide(*ALL, profile=named)) == ["c", "b", "a"]
    assert chain(router.decide(bid("a"), bid("b"), full("c"), profile=named)) == ["b", "a"]
    assert chain(router.decide(bid("a"), full("b"), full("c"), profile=named)) == ["a"]


def test_D2_a_tenants_ceiling_and_the_requests_own_the_lower_one_counts() -> None:
    router = desk(tenants=[TenantSpec("acme", max_cost_usd=0.5)])
    bids = (bid("a", cost_usd=0.6), bid("b", cost_usd=0.4), bid("c", cost_usd=None))

    plan = router.decide(*bids, profile=asking(tenant="acme"))
    assert chain(plan) == ["b"]
    assert why(record(router, plan.decision_id)) == {"a": ("ceilings", "max_cost"), "c": ("ceilings", "max_cost")}
    refusal = router.decide(*bids, profile=asking(tenant="acme", hints=Hints(max_cost_usd=0.3)))
    assert refusal.error is RouteError.MAX_COST_EXCEEDED
    raised = router.decide(*bids, profile=asking(tenant="acme", hints=Hints(max_cost_usd=0.7)))
    assert chain(raised) == ["b"], "no client raises the ceiling of its tenant"


def test_D2_the_strategy_is_the_requests_else_the_rules_else_the_tenants_else_the_pools_else_the_general_one() -> None:
    config: dict[str, Any] = {
        "tenants": [TenantSpec("acme", strategy="least_latency")],
        "pools": [PoolSpec("m", strategy="round_robin")],
        "rules": [Rule("tools", when=TOOLS, then=(by("least_connections"),))],
    }
    router = desk(**config)

    def strategy_of(**fields: Any) -> str:
        return str(router.decide(*ALL, profile=asking(**fields)).strategy)

    assert strategy_of() == "round_robin"
    assert strategy_of(tenant="acme") == "least_latency"
    assert strategy_of(tenant="acme", needs=("tools",)) == "least_connections"
    assert strategy_of(tenant="acme", needs=("tools",), hints=Hints(strategy="first")) == "first"
    assert router.decide(bid("c"), model="cheap").strategy == "first"


def test_D2_a_pools_strategy_needs_no_rule_or_tenant_to_hold() -> None:
    router = desk(pools=[PoolSpec("m", strategy="round_robin")], aliases={"mine": "m"})

    assert [router.decide(*ALL, model=model).strategy for model in ("m", "mine", "a:m")] == ["round_robin"] * 3
    assert router.decide(bid("c"), model="cheap").strategy == "first"


# -- rules


def test_A4_the_first_rule_that_matches_wins_highest_priority_first() -> None:
    rules = [
        Rule("low", 1, then=(to("a"),)),
        Rule("high", 9, when=TOOLS, then=(to("c"),)),
        Rule("off", 99, enabled=False, then=(to("b"),)),
    ]
    router = desk(rules=rules)

    with_tools = router.decide(*ALL, profile=asking(needs=("tools",)))
    without = router.decide(*ALL)
    assert (chain(with_tools)[0], record(router, with_tools.decision_id).rule) == ("c", "high")
    assert (chain(without)[0], record(router, without.decision_id).rule) == ("a", "low")


def test_A4_a_rule_without_actions_leaves_all_as_it_is_and_keeps_lower_rules_away() -> None:
    router = desk(rules=[Rule("vip", 9, when=tenant_is("acme")), Rule("others", 1, then=(to("c"),))])

    free = router.decide(*ALL, profile=asking(tenant="acme"))
    assert (chain(free), record(router, free.decision_id).rule) == (["a", "b", "c"], "vip")
    assert chain(router.decide(*ALL))[0] == "c"


def test_A4_with_fallback_others_that_serve_the_model_come_after_those_the_rule_names() -> None:
    router = desk(rules=[Rule("to-c", then=(to("c"),))])

    plan = router.decide(*ALL)
    assert chain(plan) == ["c", "a", "b"]
    notes = {one.provider: one.detail for one in record(router, plan.decision_id).candidates}
    assert notes == {"a": "not named by the rule", "b": "not named by the rule", "c": ""}
    assert chain(router.decide(bid("a"), bid("b"), no("c", NoBidReason.CIRCUIT_OPEN))) == ["a", "b"]


def test_A4_an_unhealthy_provider_a_rule_names_goes_before_a_healthy_one_it_does_not() -> None:
    router = desk(rules=[Rule("to-c", then=(to("c"),))])

    assert chain(router.decide(bid("a"), bid("b"), bid("c", healthy=False))) == ["c", "a", "b"]


def test_trap_a_rules_fallback_never_leads_to_a_provider_that_does_not_serve_the_model() -> None:
    router = desk(rules=[Rule("to-a", then=(to("a"),))])
    router.ask(model="cheap")

    assert router.asked() == ("c",)


def test_A4_without_fallback_only_those_the_rule_names_are_asked() -> None:
    router = desk(rules=[Rule("to-b", then=(to("b"),), allow_fallback=False)])
    plan = router.decide(bid("b"))

    assert router.asked() == ("b",)
    assert why(record(router, plan.decision_id)) == {"a": ("rules", "rule"), "c": ("rules", "rule")}
    query_id = router.ask(tried=("b",), may_wait=False)
    assert router.refusal(query_id).error is RouteError.ALL_TRIED


def test_A4_cost_under_matches_only_where_a_candidate_is_and_takes_those() -> None:
    dear, cheap = provider("dear", "m"), provider("cheap", "m")
    dear = priced(dear, 10.0, 30.0)
    cheap = priced(cheap, 0.1, 0.3)
    under = Condition(ConditionKind.COST_UNDER, number=0.001)
    rules = [Rule("cheap-only", when=under, then=(by("round_robin"),), allow_fallback=False)]
    router = Desk(dear, cheap, strategy="first", rules=rules)
    plan = router.decide(bid("cheap"))
    assert (router.asked(), plan.strategy) == (("cheap",), "round_robin")

    alone = Desk(dear, strategy="first", rules=rules)
    plan = alone.decide(bid("dear"))
    assert (plan.strategy, record(alone, plan.decision_id).rule) == ("first", "")


def test_trap_latency_under_is_asked_of_each_bid_and_an_unsampled_one_passes() -> None:
    under = Condition(ConditionKind.LATENCY_UNDER, number=500.0)
    bids = (bid("a", latency_ewma_s=0.9), bid("b", latency_ewma_s=0.3), bid("c", samples=0, latency_ewma_s=0.0))

    strict = desk(rules=[Rule("quick", when=under, then=(by("first"),), allow_fallback=False)])
    plan = strict.decide(*bids)
    assert chain(plan) == ["b", "c"]
    assert why(record(strict, plan.decision_id)) == {"a": ("rules", "rule")}
    lenient = desk(rules=[Rule("quick", when=under, then=(by("first"),))])
    assert chain(lenient.decide(*bids)) == ["b", "c", "a"]


def test_D7_a_rules_reject_is_answered_at_once_with_its_reason() -> None:
    router = desk(rules=[Rule("closed", then=(reject("maintenance_mode"),))])
    refusal = router.refusal(router.ask())

    assert (refusal.error, refusal.reject) == (RouteError.REJECTED, "maintenance_mode")
    assert refusal.detail == "rule 'closed' rejects this request: maintenance_mode"
    assert not router.context.fans
    found = record(router, refusal.decision_id)
    assert (found.rule, set(why(found).values())) == ("closed", {("rules", "rule")})


def test_D7_a_chain_composes_and_does_not_change_the_strategy_unless_it_says_so() -> None:
    rules = [
        Rule("both", when=TOOLS, then=(to("b", "c"), by("round_robin"), Action(ActionKind.PRIORITY, priority=CRITICAL))),
        Rule("only", then=(to("b", "c"),), allow_fallback=False),
    ]
    router = desk(strategy="least_latency", rules=rules)
    composed = router.decide(*ALL, profile=asking(needs=("tools",)))
    assert (composed.strategy, record(router, composed.decision_id).priority) == ("round_robin", CRITICAL)

    plain = router.decide(bid("b"), bid("c"))
    assert plain.strategy == "least_latency"


def test_B8_D7_a_redirect_asks_all_stages_again_for_the_new_model() -> None:
    rules = [
        Rule("down", 9, when=model_is("m"), then=(redirect("cheap"),)),
        Rule("cheap-rr", 1, when=model_is("cheap"), then=(by("round_robin"),)),
    ]
    router = desk(rules=rules)
    plan = router.decide(bid("c"))

    assert (plan.model, plan.strategy, chain(plan)) == ("cheap", "round_robin", ["c"])
    found = record(router, plan.decision_id)
    assert (found.rule, found.note, found.requested_model, found.model) == (
        "down → cheap-rr",
        "redirected: m → cheap",
        "m",
        "cheap",
    )
    (stats,) = router.give(GetRouterStats())
    assert stats.rule_hits == (("cheap-rr", 1), ("down", 1))


def test_D7_a_redirect_to_what_nobody_serves_says_where_it_led() -> None:
    router = desk(rules=[Rule("down", when=model_is("m"), then=(redirect("gone"),))])
    refusal = router.refusal(router.ask())

    assert refusal.error is RouteError.MODEL_NOT_SUPPORTED
    assert refusal.detail == "no provider has a model 'gone', to which this request was redirected: m → gone"
    found = record(router, refusal.decision_id)
    assert (found.rule, found.note, why(found)["a"]) == ("down", "redirected: m → gone", ("rules", "rule"))


def test_D7_what_else_the_chain_of_a_redirect_says_stays() -> None:
    router = desk(rules=[Rule("down", when=model_is("m"), then=(redirect("cheap"), by("round_robin")))])

    assert router.decide(bid("c")).strategy == "round_robin"


def test_D7_a_priority_that_a_redirect_has_raised_counts_for_the_rules_of_the_other_model() -> None:
    raised = (redirect("cheap"), Action(ActionKind.PRIORITY, priority=CRITICAL))
    urgent = Condition(ConditionKind.MIN_PRIORITY, number=float(CRITICAL))
    rules = [
        Rule("urgent", 9, when=Condition(ConditionKind.ALL, parts=(urgent, model_is("cheap"))), then=(by("round_robin"),)),
        Rule("down", when=model_is("m"), then=raised),
    ]
    router = desk(rules=rules)

    assert router.decide(bid("c")).strategy == "round_robin"
    assert router.decide(bid("c"), model="cheap").strategy == "first"


@pytest.mark.parametrize("others", [(), (Rule("any", then=(by("first"),)),)])
def test_D7_what_a_redirect_asked_of_candidates_it_asked_of_those_it_leaves(others: tuple[Rule, ...]) -> None:
    dear = Condition(ConditionKind.NOT, parts=(Condition(ConditionKind.COST_UNDER, number=0.001),))
    when = Condition(ConditionKind.ALL, parts=(model_is("m"), dear))
    rules = [Rule("too-dear", 9, when=when, then=(redirect("small"),), allow_fallback=False), *others]
    router = Desk(priced(A, 10.0, 30.0), priced(provider("s", "small"), 0.1, 0.1), strategy="first", rules=rules)

    plan = router.decide(bid("s"))
    assert (plan.model, chain(plan)) == ("small", ["s"])


def test_D7_a_redirect_to_where_the_request_is_already_changes_nothing() -> None:
    router = desk(rules=[Rule("all-cheap", then=(redirect("cheap"), by("round_robin")))])

    assert (router.decide(bid("c")).model, router.decide(bid("c"), model="cheap").strategy) == ("cheap", "round_robin")


def test_B8_redirects_in_a_circle_are_told_as_our_own_fault() -> None:
    pools = [PoolSpec("m", rules=(PoolRule((), redirect="cheap"),)), PoolSpec("cheap", rules=(PoolRule((), redirect="m"),))]
    router = desk(pools=pools)
    refusal = router.refusal(router.ask())

    assert refusal.error is RouteError.SELECTION_FAILED
    assert refusal.detail == "redirects lead in a circle: m → cheap → m"


def test_B8_a_circle_is_one_under_an_alias_too() -> None:
    rules = [
        Rule("there", when=model_is("m"), then=(redirect("cheap"),)),
        Rule("back", when=model_is("cheap"), then=(redirect("old"),)),
    ]
    router = desk(rules=rules, aliases={"old": "m"})

    refusal = router.refusal(router.ask())
    assert (refusal.error, refusal.detail) == (RouteError.SELECTION_FAILED, "redirects lead in a circle: m → cheap → old")


def test_A4_matches_are_counted_once_for_each_request_and_not_for_dry_runs() -> None:
    router = desk(
        rules=[
            Rule("tools", when=TOOLS, then=(by("first"),)),
            Rule("never", when=Condition(ConditionKind.NEVER), then=(by("first"),)),
        ]
    )
    profile = asking(needs=("tools",))
    router.decide(*ALL, profile=profile)
    router.decide(bid("b"), bid("c"), profile=profile, query_id="q1", tried=("a",))
    router.decide(*ALL, profile=profile, query_id="explain-1", may_wait=False)
    router.decide(*ALL)
    (stats,) = router.give(GetRouterStats())
    assert stats.rule_hits == (("never", 0), ("tools", 1))

    router.give(Configured(snapshot(A, generation=2, rules=[Rule("tools", when=TOOLS, then=(by("first"),))])))
    (stats,) = router.give(GetRouterStats())
    assert stats.rule_hits == (("tools", 1),)


def test_trap_a_rule_that_looks_at_the_time_is_asked_anew_for_each_request() -> None:
    night = Condition(ConditionKind.TIME_RANGE, start_s=22 * 3600.0, end_s=6 * 3600.0)
    router = desk(rules=[Rule("night", when=night, then=(to("c"),))])
    day_s = router.context.wall() // 86400.0 * 86400.0

    router.context.unix = day_s + 12 * 3600.0
    assert chain(router.decide(*ALL))[0] == "a"
    router.context.unix = day_s + 23 * 3600.0
    assert chain(router.decide(*ALL))[0] == "c"


# -- labels


def test_B8_labels_of_the_callers_key_deny_or_redirect_and_the_first_match_wins() -> None:
    rules = (PoolRule((("purpose", "batch"),), deny=True), PoolRule((("tier", "free"),), redirect="cheap"))
    router = desk(pools=[PoolSpec("m", rules=rules)])

    batch = asking(labels=(("purpose", "batch"), ("tier", "free")))
    refusal = router.refusal(router.ask(profile=batch))
    assert refusal.error is RouteError.ALL_FILTERED
    assert "purpose=batch" in refusal.detail
    assert set(why(record(router, refusal.decision_id)).values()) == {("pool", "labels")}
    assert router.decide(bid("c"), profile=asking(labels=(("tier", "free"),))).model == "cheap"
    assert router.decide(*ALL, profile=asking(labels=(("tier", "gold"),))).model == "m"
    assert router.decide(*ALL).model == "m"


# -- hints


def test_D9_a_region_and_a_zone_are_preferred_and_are_no_cage() -> None:
    router = Desk(
        provider("us", "m", region="us"),
        provider("eu", "m", region="eu", zone="eu-1"),
        provider("eu2", "m", region="eu", zone="eu-2"),
        strategy="first",
    )
    bids = (bid("us"), bid("eu"), bid("eu2"))

    assert chain(router.decide(*bids, profile=asking(hints=Hints(regions=("eu",))))) == ["eu", "eu2", "us"]
    assert chain(router.decide(*bids, profile=asking(hints=Hints(regions=("eu",), zone="eu-2")))) == ["eu2", "eu", "us"]
    assert chain(router.decide(*bids, profile=asking(hints=Hints(regions=("asia",))))) == ["us", "eu", "eu2"]


def test_D9_of_several_preferred_regions_the_first_goes_before_the_others() -> None:
    router = Desk(*(provider(name, "m", region=name) for name in ("us", "eu", "asia")), provider("none", "m"), strategy="first")
    bids = tuple(bid(name) for name in ("us", "eu", "asia", "none"))
    hints = Hints(regions=("asia", "eu"))

    assert chain(router.decide(*bids, profile=asking(hints=hints))) == ["asia", "eu", "us", "none"]


def test_D9_the_region_goes_before_the_zone() -> None:
    router = Desk(provider("zone", "m", region="us", zone="z"), provider("region", "m", region="eu"), strategy="first")
    hints = Hints(regions=("eu",), zone="z")

    assert chain(router.decide(bid("zone"), bid("region"), profile=asking(hints=hints))) == ["region", "zone"]


def test_D9_D3_targets_of_latency_and_throughput_leave_out_who_is_known_to_miss_them() -> None:
    router = desk()
    # Whatever an unknown provider is thought to take, it is not known to miss anything.
    bids = (bid("a", latency_p50_s=2.0), bid("b", latency_p50_s=0.3, tokens_per_s=10.0), bid("c", samples=0, latency_p50_s=9.0))
    plan = router.decide(*bids, profile=asking(hints=Hints(max_latency_s=1.0, tokens_per_s=50.0)))

    assert chain(plan) == ["c"]
    found = record(router, plan.decision_id)
    assert why(found) == {"a": ("ceilings", "max_latency"), "b": ("ceilings", "throughput")}
    details: dict[str, Candidate] = {one.provider: one for one in found.candidates}
    assert details["a"].detail == "median 2000 ms, target 1000 ms"


def test_D9_of_tags_that_are_asked_for_a_provider_must_have_all() -> None:
    router = Desk(
        provider("one", "m", tags=("eu",)),
        provider("both", "m", tags=("gpu", "eu", "new")),
        provider("none", "m"),
        strategy="first",
    )
    plan = router.decide(bid("both"), profile=asking(hints=Hints(tags=("eu", "gpu"))))

    assert chain(plan) == ["both"]
    left = {one.provider: one.detail for one in record(router, plan.decision_id).candidates if one.reason == Exclusion.TAGS}
    assert left == {"one": "lacks gpu", "none": "lacks eu, gpu"}


def test_D9_the_record_holds_what_was_known_of_the_request() -> None:
    router = desk()
    profile = asking(
        tenant="acme", user="u", hints=Hints(organization="org", features=("x",)), source="127.0.0.1", agent="curl/8"
    )
    assert record(router, router.decide(*ALL, profile=profile).decision_id).profile == profile


def test_D9_the_more_urgent_waits_less_and_nobody_is_starved() -> None:
    router = Desk(A, strategy="first", queue_max_wait_s=60.0)
    low = waiting(router, LOW, 0.0)
    high = waiting(router, HIGH, 1.0)
    later = waiting(router, HIGH, 20.0)

    router.give(CapacityFreed("a", 3))
    assert [fan.message.query_id for fan in router.context.fans[-3:]] == [high, low, later]


def test_D7_a_priority_that_a_rule_sets_counts_in_the_queue() -> None:
    urgent = Rule("vip", when=tenant_is("acme"), then=(Action(ActionKind.PRIORITY, priority=HIGH),))
    router = Desk(A, strategy="first", queue_max_wait_s=60.0, rules=[urgent])
    plain = waiting(router, NORMAL, 0.0)
    vip = waiting(router, NORMAL, 1.0, tenant="acme")

    router.give(CapacityFreed("a", 2))
    assert [fan.message.query_id for fan in router.context.fans[-2:]] == [vip, plain]


def waiting(router: Desk, priority: int, at: float, **fields: Any) -> str:
    profile = asking(hints=Hints(priority=priority), **fields)
    query_id = router.ask(profile=profile, arrived_at=router.context.now() + at)
    router.gathered(full("a"))
    return query_id


# -- herding, fan-out, records


@pytest.mark.parametrize("strategy", ["adaptive", "least_connections", "least_requests", "round_robin"])
def test_D11_a_hundred_equal_queries_in_one_turn_spread_evenly(strategy: str) -> None:
    router = desk(strategy=strategy)
    for _ in range(100):
        router.ask()
    for fan in range(100):
        router.gathered(*ALL, fan=fan)
    winners = [slot.answers[0].choices[0].provider for slot in router.context.slots]
    assert sorted(winners.count(name) for name in "abc") == [33, 33, 34]


@pytest.mark.parametrize("strategy", ["least_latency", "success_latency_ratio", "power_of_two"])
def test_D11_plans_on_their_way_to_an_unknown_provider_explore_it_already(strategy: str) -> None:
    router = Desk(A, B, strategy=strategy)
    for _ in range(5):
        router.ask()
    known = bid("a", successes=9.0, latency_peak_s=0.3)
    for fan in range(5):
        router.gathered(known, bid("b", samples=0, latency_p50_s=0.0, latency_ewma_s=0.0, latency_peak_s=0.0), fan=fan)

    winners = [slot.answers[0].choices[0].provider for slot in router.context.slots]
    assert winners == ["b", "b", "a", "a", "a"]


def test_D12_the_record_lists_who_was_asked_and_counts_the_rest() -> None:
    specs = [provider(f"p{n:03}", "m") for n in range(200)]
    router = Desk(*specs, strategy="adaptive")
    router.ask()
    assert len(router.asked()) == 16
    router.gathered(*(bid(name) for name in router.asked()))
    found = record(router, router.plan("q1").decision_id)

    assert len(found.candidates) == 64
    assert {one.provider for one in found.candidates if one.bid is not None} == set(router.asked())
    assert (found.rest, found.not_asked) == ((("not_sampled", 136),), 184)


def test_D12_the_record_holds_every_configured_provider_with_the_stage_that_removed_it() -> None:
    router = Desk(A, B, C, provider("other", "x"), strategy="first")
    hints = Hints(exclude=("a",))
    plan = router.decide(bid("b"), no("c", NoBidReason.CIRCUIT_OPEN), profile=asking(hints=hints))

    assert why(record(router, plan.decision_id)) == {
        "a": ("exclusions", Exclusion.EXCLUDED),
        "c": ("health", NoBidReason.CIRCUIT_OPEN),
        "other": ("candidates", Exclusion.MODEL),
    }


def test_D11_beyond_the_fan_out_the_static_order_counts_among_those_a_request_leaves() -> None:
    specs = [provider(f"p{n:02}", "m", priority=n) for n in range(40)]
    router = Desk(*specs, strategy="priority")
    router.ask(profile=asking(hints=Hints(exclude=("p39",))))

    assert set(router.asked()) == {f"p{n}" for n in range(23, 39)}


def test_D11_the_static_order_of_one_tenants_candidates_is_kept_for_nobody_else() -> None:
    specs = [provider(f"p{n:02}", "m", priority=n) for n in range(40)]
    allowed = tuple(spec.id for spec in specs[:20])
    router = Desk(*specs, strategy="priority", tenants=[TenantSpec("acme", allowed_providers=allowed)])
    asked = []
    for tenant in ("acme", "", "acme"):
        router.ask(profile=asking(tenant=tenant))
        asked.append(set(router.asked()))

    few, all_of_them = ({f"p{n:02}" for n in range(last - 16, last)} for last in (20, 40))
    assert asked == [few, all_of_them, few]


def test_trap_a_weight_that_became_zero_while_a_round_was_out_takes_nothing() -> None:
    router = desk(strategy="least_connections")

    assert chain(router.decide(bid("a", weight=0), bid("b"), bid("c", weight=0))) == ["b"]
    refusal = router.decide(*(bid(name, weight=0) for name in "abc"))
    assert refusal.error is RouteError.NO_PROVIDERS_AVAILABLE


def test_A5_a_strategy_of_others_that_fails_is_replaced_by_first_and_told_and_counted() -> None:
    def broken(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
        raise ValueError("no idea")

    router = desk()
    strategy = Strategy("theirs", broken, is_foreign=True)
    router.actor = RouterActor(snapshot(A, B, C, strategy="theirs"), strategies={**STRATEGIES, "theirs": strategy})
    plan = router.decide(*ALL)

    assert chain(plan) == ["a", "b", "c"]
    assert record(router, plan.decision_id).note == "theirs failed (ValueError: no idea): first stood in"
    assert router.context.take_told() == [("faults", StrategyFailed("theirs", "ValueError: no idea"))]
    (stats,) = router.give(GetRouterStats())
    assert stats.strategy_errors == 1
