"""What a request needs goes before tenant, pool and rules: in the record, the error, and what a rule asks of candidates."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from actors.provider.bidding import offer
from actors.provider.catalog import Catalog
from actors.provider.limits import Limits
from actors.provider.standing import Standing
from actors.requirements import lacking
from messages.control import HealthSpec, ModelSpec, ProviderSpec
from messages.decisions import Candidate
from messages.policy import Action, ActionKind, ChainStep, Condition, ConditionKind, PoolRule, PoolSpec, Rule, TenantSpec
from messages.routing import CallForBids, Exclusion, Hints, NoBid, NoBidReason, NoRoute, RequestProfile, RouteError, RoutePlan
from tests.actors.router_kit import Desk, bid, chain, full, no, provider

PLAIN = ("chat", "json", "streaming", "tools")
SEEING = (*PLAIN, "vision")
PICTURE = RequestProfile("m", needs=("chat", "vision"))
MISSING = ("requirements", "missing_capability", "vision")
TENANT = ("tenant", "tenant", "tenant acme")
ONLY_C = [TenantSpec("acme", allowed_providers=("c",))]


def blind(name: str, **fields: Any) -> ProviderSpec:
    return provider(name, "m", capabilities=PLAIN, **fields)


def seeing(name: str, **fields: Any) -> ProviderSpec:
    return provider(name, "m", capabilities=SEEING, **fields)


def short(name: str, window: int = 1000, longest: int | None = None) -> ProviderSpec:
    return provider(name, models=(ModelSpec("m", "m", context_window=window, max_output_tokens=longest),))


def told(desk: Desk, answer: RoutePlan | NoRoute) -> dict[str, tuple[str, str, str]]:
    """Stage, reason and detail of those left out."""

    def why(one: Candidate) -> tuple[str, str, str]:
        return one.stage, one.reason, one.detail

    return {name: why(one) for name, one in desk.candidates(answer.decision_id).items() if one.reason}


def test_D4_who_lacks_a_capability_is_recorded_so_whatever_the_tenant_says_too() -> None:
    desk = Desk(blind("a"), seeing("b"), seeing("c"), strategy="first", tenants=ONLY_C)
    plan = desk.decide(bid("c"), profile=replace(PICTURE, tenant="acme"))

    assert chain(plan) == ["c"]
    assert told(desk, plan) == {"a": MISSING, "b": TENANT}


def test_D4_a_request_that_needs_nothing_special_is_told_of_the_tenant() -> None:
    desk = Desk(blind("a"), seeing("c"), strategy="first", tenants=ONLY_C)
    plan = desk.decide(bid("c"), profile=RequestProfile("m", needs=("chat",), tenant="acme"))

    assert told(desk, plan) == {"a": TENANT}


@pytest.mark.parametrize(
    ("profile", "detail"),
    [
        (RequestProfile("m", prompt_tokens=1001), "about 1001 tokens do not fit into 1000"),
        (RequestProfile("m", prompt_tokens=600, max_tokens=401), "about 1001 tokens do not fit into 1000"),
        (RequestProfile("m", prompt_tokens=1, max_tokens=501), "max_tokens 501 > 500, the longest answer of the model"),
    ],
)
def test_D1_D4_whom_the_request_does_not_fit_is_recorded_so_whatever_the_pool_says_too(
    profile: RequestProfile, detail: str
) -> None:
    pools = [PoolSpec("m", chain=(ChainStep(("c",)),))]
    desk = Desk(short("a", longest=500), provider("b", "m"), provider("c", "m"), strategy="first", pools=pools)
    plan = desk.decide(bid("c"), profile=profile)

    assert told(desk, plan) == {"a": ("requirements", "context_too_long", detail), "b": ("pool", "chain", "pool m")}


def test_D4_so_is_whom_a_rule_does_not_name_and_whom_it_rejects() -> None:
    named = Rule("only-c", then=(Action(ActionKind.PROVIDERS, ("c",)),), allow_fallback=False)
    desk = Desk(blind("a"), seeing("b"), seeing("c"), strategy="first", rules=[named])
    plan = desk.decide(bid("c"), profile=PICTURE)
    assert told(desk, plan) == {"a": MISSING, "b": ("rules", "rule", "rule only-c")}

    closed = Rule("closed", then=(Action(ActionKind.REJECT, ("maintenance_mode",)),))
    desk = Desk(blind("a"), seeing("b"), strategy="first", rules=[closed])
    refusal = desk.refusal(desk.ask(profile=PICTURE))
    assert (refusal.error, refusal.reject) == (RouteError.REJECTED, "maintenance_mode")
    assert {name: why[:2] for name, why in told(desk, refusal).items()} == {"a": MISSING[:2], "b": ("rules", "rule")}


def test_D4_B8_so_is_whom_a_pool_denies() -> None:
    pools = [PoolSpec("m", rules=(PoolRule((("tier", "free"),), deny=True),))]
    desk = Desk(blind("a"), seeing("b"), strategy="first", pools=pools)
    refusal = desk.refusal(desk.ask(profile=replace(PICTURE, labels=(("tier", "free"),))))

    assert refusal.error is RouteError.ALL_FILTERED
    assert told(desk, refusal) == {"a": MISSING, "b": ("pool", "labels", "pool m")}


@pytest.mark.parametrize("reason", [NoBidReason.DISABLED, NoBidReason.DRAINING, NoBidReason.OUT, NoBidReason.CRASHED])
def test_D4_health_comes_after_what_the_request_needs(reason: NoBidReason) -> None:
    desk = Desk(blind("a"), seeing("b"), strategy="first")
    plan = desk.decide(no("a", reason), bid("b"), profile=PICTURE)

    assert told(desk, plan) == {"a": MISSING}


def test_D4_so_do_the_weight_and_the_fan_out() -> None:
    desk = Desk(blind("a", weight=0), seeing("b", weight=0), seeing("c"), strategy="weighted")
    plan = desk.decide(bid("c"), profile=PICTURE)
    assert told(desk, plan) == {"a": MISSING, "b": ("strategy", "weight_zero", "")}

    desk = Desk(seeing("a"), blind("b"), seeing("c"), strategy="first", fanout=1)
    plan = desk.decide(bid("a"), profile=PICTURE)
    assert told(desk, plan) == {"b": MISSING, "c": ("fan-out", "not_sampled", "")}


def test_D4_what_the_request_itself_excludes_comes_before_what_it_needs() -> None:
    desk = Desk(blind("a"), blind("b", tags=("eu",)), seeing("c", tags=("eu",)), strategy="first")
    plan = desk.decide(bid("c"), profile=replace(PICTURE, hints=Hints(exclude=("b",), tags=("eu",))))

    assert told(desk, plan) == {"a": ("exclusions", "tags", "lacks eu"), "b": ("exclusions", "excluded", "")}


def test_D4_the_client_is_told_of_each_candidate_what_comes_first() -> None:
    desk = Desk(blind("a"), seeing("b"), strategy="first", tenants=[TenantSpec("acme", allowed_providers=())])
    refusal = desk.refusal(desk.ask(profile=replace(PICTURE, tenant="acme")))

    assert [(left.provider, left.reason) for left in refusal.left_out] == [("a", "missing_capability"), ("b", "tenant")]
    assert refusal.detail == (
        "nobody can take 'm' now: a lacks a capability the request needs (vision); b is not allowed to the tenant (tenant acme)"
    )


LONG = RequestProfile("m", prompt_tokens=5000, tenant="acme")


@pytest.mark.parametrize(
    ("allowed", "answers", "error"),
    [
        # It would fit b, whom the tenant may not use: a shorter prompt would not help.
        ((), (), RouteError.ALL_FILTERED),
        # Of those the tenant may use it fits nobody: a shorter prompt would help.
        (("a",), (no("a", NoBidReason.CONTEXT_TOO_LONG),), RouteError.CONTEXT_LENGTH_EXCEEDED),
        (("b",), (no("b", NoBidReason.DISABLED),), RouteError.NO_PROVIDERS_AVAILABLE),
        (("b",), (full("b"),), RouteError.AT_CAPACITY),
    ],
)
def test_D4_who_lacks_something_and_is_barred_too_counts_as_barred_for_the_error(
    allowed: tuple[str, ...], answers: tuple[NoBid, ...], error: RouteError
) -> None:
    desk = Desk(short("a"), provider("b", "m"), tenants=[TenantSpec("acme", allowed_providers=allowed)])
    query_id = desk.ask(profile=LONG, may_wait=False)
    if answers:
        desk.gathered(*answers)

    assert desk.refusal(query_id).error is error


@pytest.mark.parametrize("allowed", [(), ("a",)])
def test_D4_what_fits_nobody_at_all_is_too_long_whatever_policy_says(allowed: tuple[str, ...]) -> None:
    desk = Desk(short("a"), short("b", 2000), tenants=[TenantSpec("acme", allowed_providers=allowed)])
    query_id = desk.ask(profile=LONG)
    if allowed:
        desk.gathered(no("a", NoBidReason.CONTEXT_TOO_LONG))

    assert desk.refusal(query_id).error is RouteError.CONTEXT_LENGTH_EXCEEDED


def test_D4_what_a_switched_off_provider_lacks_is_no_reason_to_come_back_later() -> None:
    desk = Desk(short("a"))
    refusal = desk.decide(no("a", NoBidReason.DISABLED), profile=LONG)

    assert (refusal.error, refusal.retry_after_s) == (RouteError.CONTEXT_LENGTH_EXCEEDED, None)


@pytest.mark.parametrize("barred_by", ["needs", "tenant", "pool"])
def test_D4_D7_a_rule_does_not_match_for_a_candidate_that_is_out_before_the_rules(barred_by: str) -> None:
    cheap = provider("cheap", models=(ModelSpec("m", "m", input_price=0.1, output_price=0.1),), capabilities=PLAIN)
    dear = provider("dear", models=(ModelSpec("m", "m", input_price=9.0, output_price=9.0),), capabilities=SEEING)
    under = Rule("cheap-only", when=Condition(ConditionKind.COST_UNDER, number=0.001), allow_fallback=False)
    tenants = [TenantSpec("acme", allowed_providers=("dear",))] if barred_by == "tenant" else []
    pools = [PoolSpec("m", chain=(ChainStep(("dear",)),))] if barred_by == "pool" else []
    desk = Desk(cheap, dear, strategy="first", rules=[under], tenants=tenants, pools=pools)
    profile = replace(PICTURE, needs=("chat", "vision") if barred_by == "needs" else ("chat",), tenant="acme")
    query_id = desk.ask(profile=profile)

    desk.gathered(*(no(name, NoBidReason.MISSING_CAPABILITY) if name == "cheap" else bid(name) for name in desk.asked()))
    assert chain(desk.plan(query_id)) == ["dear"]


def test_D4_beyond_the_fan_out_whoever_lacks_something_is_not_asked_in_the_second_round() -> None:
    many = (*(blind(f"p{number:02}") for number in range(40)), seeing("last"))
    desk = Desk(*many, strategy="first")
    query_id = desk.ask(profile=PICTURE, may_wait=False)
    assert len(desk.asked()) == 16
    desk.gathered(*(no(name, NoBidReason.MISSING_CAPABILITY, detail="vision") for name in desk.asked()))

    assert desk.asked() == ("last",)
    desk.gathered(full("last"))
    refusal = desk.refusal(query_id)
    assert refusal.error is RouteError.AT_CAPACITY
    assert [left.reason for left in refusal.left_out] == ["missing_capability"] * 40 + ["at_capacity"]
    assert set(told(desk, refusal).values()) == {MISSING, ("limits", "at_capacity", "")}


NEEDS = [("chat",), ("chat", "vision"), ("embeddings",), ("chat", "json", "tools", "vision"), ()]
SIZES = [(0, None), (1000, None), (1001, None), (900, 100), (900, 101), (10, 500), (10, 501)]
SPECS = [
    provider("p", models=(ModelSpec("m", "m", context_window=window, max_output_tokens=longest),), capabilities=capabilities)
    for window in (None, 1000)
    for longest in (None, 500)
    for capabilities in (PLAIN, SEEING, (*SEEING, "embeddings"))
] + [provider("p", takes_any=True, capabilities=PLAIN)]


@pytest.mark.parametrize("needs", NEEDS)
def test_C1_D1_the_router_says_of_those_it_does_not_ask_what_they_would_say_themselves(needs: tuple[str, ...]) -> None:
    for spec, (prompt_tokens, max_tokens) in product(SPECS, SIZES):
        profile = RequestProfile("m", prompt_tokens=prompt_tokens, max_tokens=max_tokens, needs=tuple(sorted(needs)))
        standing, limits = Standing(spec, HealthSpec()), Limits(spec.limits, 0.0, True)
        answer = offer(spec, Catalog(spec), standing, limits, CallForBids("q", profile, "m"), 0.0)

        said = (answer.reason, answer.detail) if isinstance(answer, NoBid) else None
        assert lacking(spec, next(iter(spec.models), None), profile) == said


def test_D4_reasons_that_come_before_needs_are_not_looked_into() -> None:
    desk = Desk(blind("a"), blind("b"), strategy="first")
    refusal = desk.refusal(desk.ask(profile=PICTURE, tried=("a",), refused=("b",), may_wait=False))

    assert [left.reason for left in refusal.left_out] == [Exclusion.TRIED, Exclusion.REFUSED]
