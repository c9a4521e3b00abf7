"""Rows of FEATURES that take several parts of choosing at once: the stages, what a decision names, what it costs."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import orjson
import pytest

from actors.kernel import Ref
from actors.provider.actor import ProviderActor
from actors.router.strategies import STRATEGIES
from messages.calls import Award, CallEnded, Outcome, Usage
from messages.control import HealthSpec, ModelSpec, ProviderSpec
from messages.decisions import Decision, DecisionFound, GetDecision, GetRouterStats, RouterStats
from messages.policy import Action, ActionKind, Condition, ConditionKind, PoolRule, PoolSpec, Rule, TenantSpec
from messages.routing import (
    Bid,
    CallForBids,
    Gathered,
    Hints,
    NoBid,
    NoBidReason,
    RequestProfile,
    RouteError,
    RouteQuery,
)
from runtime.dialects.request import Endpoint, read_request
from runtime.system.solo import SoloContext
from tests.actors.router_kit import Desk, bid, chain, full, no, provider
from tests.actors.strategy_desk import scores, winner

EVERYTHING = ("chat", "embeddings", "json", "streaming", "tools", "vision")


def record(desk: Desk, decision_id: str) -> Decision:
    (found,) = desk.give(GetDecision(decision_id))
    assert isinstance(found, DecisionFound)
    assert found.decision is not None
    return found.decision


def to(*names: str) -> Action:
    return Action(ActionKind.PROVIDERS, names)


def model_is(*names: str) -> Condition:
    return Condition(ConditionKind.MODEL, names=names)


# -- B2


def test_B2_the_highest_priority_that_can_take_the_call_has_it_and_the_next_one_when_it_cannot() -> None:
    desk = Desk(provider("low", "m"), provider("high", "m"), provider("also-high", "m"), strategy="priority")
    low, high, also_high = bid("low", priority=1), bid("high", priority=9), bid("also-high", priority=9)

    assert chain(desk.decide(low, high, also_high)) == ["high", "also-high", "low"]
    assert chain(desk.decide(low, full("high"), also_high)) == ["also-high", "low"]
    assert chain(desk.decide(low, full("high"), full("also-high"))) == ["low"]


# -- C1, C2: what a request needs follows from it, and only who has it bids


def bidder(*, without: str = "") -> ProviderSpec:
    """A provider that has every capability but one."""
    able = tuple(name for name in EVERYTHING if name != without)
    return ProviderSpec("p", "openai", "http://p", "c", (ModelSpec("m", "m"),), capabilities=able)


def answer(call: CallForBids, *, without: str = "") -> Bid | NoBid:
    """What such a provider says."""
    actor = ProviderActor(bidder(without=without), HealthSpec(), 1, None, Ref("router"))
    (said,) = SoloContext("provider:p").give(actor, call)
    assert isinstance(said, Bid | NoBid)
    return said


@pytest.mark.parametrize(
    ("endpoint", "fields", "needed"),
    [
        ("chat", {"messages": []}, "chat"),
        ("chat", {"messages": [], "tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ("chat", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "vision"),
        ("chat", {"messages": [], "response_format": {"type": "json_object"}}, "json"),
        ("chat", {"messages": [], "stream": True}, "streaming"),
        ("embeddings", {"input": "hello"}, "embeddings"),
    ],
)
def test_C1_capabilities_are_derived_from_the_request_and_matched(
    endpoint: Endpoint, fields: dict[str, Any], needed: str
) -> None:
    request = read_request(endpoint, orjson.dumps({"model": "m", **fields}))
    call = CallForBids("q", RequestProfile("m", endpoint, needs=request.needs), "m")

    assert needed in request.needs
    assert isinstance(answer(call), Bid)
    refusal = answer(call, without=needed)
    assert isinstance(refusal, NoBid)
    assert refusal.reason is NoBidReason.MISSING_CAPABILITY
    assert needed in refusal.detail


def test_C1_least_loaded_goes_by_active_calls() -> None:
    loads = (bid("a", in_flight=3), bid("b", in_flight=1), bid("c", in_flight=2))
    for strategy in ("least_requests", "least_connections"):
        assert winner(strategy, *loads) == "b"


def test_C2_a_request_may_require_capabilities_a_model_or_nothing() -> None:
    desk = Desk(provider("any", takes_any=True), provider("a", "m"), provider("b", "m"), strategy="first", default="any")

    assert chain(desk.decide(bid("a"), bid("b"))) == ["a", "b"]
    able = desk.decide(no("a", NoBidReason.MISSING_CAPABILITY, detail="tools"), bid("b"))
    assert chain(able) == ["b"]
    assert record(desk, able.decision_id).candidates[1].stage == "requirements"
    assert chain(desk.decide(bid("any"), model="whatever there is")) == ["any"]


# -- D4: the stages, and what each takes out

FLEET = (
    provider("other", "another"),
    *(provider(name, "m", tags=("t",)) for name in ("excluded", "barred", "ruled-out", "unable", "ill", "busy")),
    provider("untagged", "m"),
    *(provider(name, "m", tags=("t",)) for name in ("dear", "slow", "dripping", "next", "winner")),
    provider("weightless", "m", tags=("t",), weight=0),
)
STAGES = {
    "other": ("candidates", "model"),
    "excluded": ("exclusions", "excluded"),
    "untagged": ("exclusions", "tags"),
    "barred": ("tenant", "tenant"),
    "ruled-out": ("rules", "rule"),
    "unable": ("requirements", "missing_capability"),
    "ill": ("health", "circuit_open"),
    "busy": ("limits", "at_capacity"),
    "dear": ("ceilings", "max_cost"),
    "slow": ("ceilings", "max_latency"),
    "dripping": ("ceilings", "throughput"),
    "weightless": ("strategy", "weight_zero"),
}


def pipeline() -> Desk:
    everybody = tuple(spec.id for spec in FLEET)
    return Desk(
        *FLEET,
        strategy="smooth_weighted_round_robin",
        tenants=[TenantSpec("acme", allowed_providers=tuple(name for name in everybody if name != "barred"))],
        rules=[Rule("r", then=(to(*(name for name in everybody if name != "ruled-out")),), allow_fallback=False)],
    )


DEMANDING = Hints(exclude=("excluded",), tags=("t",), max_cost_usd=0.5, max_latency_s=1.0, tokens_per_s=50.0)


def test_D4_each_stage_removes_its_own_and_the_record_says_which_and_why() -> None:
    desk = pipeline()
    plan = desk.decide(
        no("unable", NoBidReason.MISSING_CAPABILITY, detail="vision"),
        no("ill", NoBidReason.CIRCUIT_OPEN),
        full("busy"),
        bid("dear", cost_usd=0.6),
        bid("slow", latency_p50_s=2.0),
        bid("dripping", tokens_per_s=10.0),
        bid("next", weight=1, expected_s=3.0, cost_usd=0.2, tokens=70),
        bid("winner", weight=5, expected_s=2.0, cost_usd=0.1, tokens=60),
        profile=RequestProfile("m", tenant="acme", hints=DEMANDING),
    )

    # Then who was removed before the bids is not asked
    assert desk.asked() == ("unable", "ill", "busy", "dear", "slow", "dripping", "next", "winner")
    # And the strategy ranks who is left, with the estimates an award reserves
    assert [(one.provider, one.expected_s, one.cost_usd, one.tokens) for one in plan.choices] == [
        ("winner", 2.0, 0.1, 60),
        ("next", 3.0, 0.2, 70),
    ]
    found = record(desk, plan.decision_id)
    assert {one.provider: (one.stage, one.reason) for one in found.candidates if one.reason} == STAGES
    assert [one.provider for one in found.candidates if not one.reason] == ["next", "winner"]


def test_D4_who_would_fall_at_several_stages_falls_at_the_first() -> None:
    worst = provider("worst", "m", weight=0)
    stages = []
    hints, tenants, rules = Hints(exclude=("worst",), tags=("t",)), [TenantSpec("acme", allowed_providers=("good",))], [
        Rule("r", then=(to("good"),), allow_fallback=False)
    ]  # fmt: skip
    for hint, tenant, rule in (
        (hints, tenants, rules),
        (Hints(tags=("t",)), tenants, rules),
        (Hints(), tenants, rules),
        (Hints(), [], rules),
        (Hints(), [], []),
    ):
        desk = Desk(worst, provider("good", "m", tags=("t",)), strategy="weighted", tenants=tenant, rules=rule)
        plan = desk.decide(bid("good"), profile=RequestProfile("m", tenant="acme", hints=hint))
        left = record(desk, plan.decision_id).candidates[0]
        stages.append((left.stage, left.reason))

    assert stages == [
        ("exclusions", "excluded"),
        ("exclusions", "tags"),
        ("tenant", "tenant"),
        ("rules", "rule"),
        ("strategy", "weight_zero"),
    ]


def test_D4_pool_rules_come_before_routing_rules() -> None:
    pool = PoolSpec("m", rules=(PoolRule((("tier", "free"),), deny=True),))
    desk = Desk(provider("a", "m"), pools=[pool], rules=[Rule("r", then=(Action(ActionKind.REJECT, ("no",)),))])
    refusal = desk.refusal(desk.ask(profile=RequestProfile("m", labels=(("tier", "free"),))))

    assert refusal.error is RouteError.ALL_FILTERED
    found = record(desk, refusal.decision_id)
    assert [(one.stage, one.reason) for one in found.candidates] == [("pool", "labels")]
    assert found.rule == ""


def test_D4_the_errors_of_the_row_have_their_names() -> None:
    names = {"model_not_supported", "no_providers_available", "all_filtered", "all_unhealthy", "selection_failed"}
    # A budget of money comes later; the ceiling of one request has an error of its own.
    names |= {"strategy_not_found", "timeout", "max_cost_exceeded"}
    assert names <= {str(error) for error in RouteError}


def test_D4_a_circle_of_redirects_is_recorded_with_the_way_it_took() -> None:
    rules = [Rule("there", when=model_is("m"), then=(Action(ActionKind.REDIRECT, ("n",)),))]
    rules += [Rule("back", when=model_is("n"), then=(Action(ActionKind.REDIRECT, ("m",)),))]
    desk = Desk(provider("a", "m", "n"), rules=rules)
    found = record(desk, desk.refusal(desk.ask()).decision_id)

    assert (found.error, found.rule) == ("selection_failed", "there → back")
    assert found.note == "redirects lead in a circle: m → n → m"
    assert [(one.stage, one.reason) for one in found.candidates] == [("rules", "rule")]


# -- D7


def test_D7_the_rule_that_matched_is_in_the_decision_and_its_matches_are_counted() -> None:
    desk = Desk(provider("a", "m", "n"), strategy="first", rules=[Rule("only-n", when=model_is("n"), then=(to("a"),))])
    told = [record(desk, desk.decide(bid("a"), model=model).decision_id).rule for model in ("m", "n", "n")]

    assert told == ["", "only-n", "only-n"]
    (stats,) = desk.give(GetRouterStats())
    assert isinstance(stats, RouterStats)
    assert stats.rule_hits == (("only-n", 2),)


def test_trap_to_name_several_providers_does_not_change_the_strategy() -> None:
    rules = [Rule("both", then=(to("a", "b"),))]
    for strategy in ("first", "least_latency", "thompson"):
        desk = Desk(provider("a", "m"), provider("b", "m"), strategy=strategy, rules=rules)
        assert desk.decide(bid("a"), bid("b")).strategy == strategy


# -- D11: counted in calls of functions, which no slow machine can falsify


def calls_of(decide: Callable[[], None]) -> int:
    """How many functions of the actors are called by ``decide``."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_globals["__name__"].startswith("actors.")

    sys.setprofile(note)
    try:
        decide()
    finally:
        sys.setprofile(None)
    return count


def decision_calls(strategy: str, providers: int, *, models: int = 1, rules: int = 0) -> int:
    """Calls of one decision on ``m``, after another one has filled what is kept between them."""
    others = tuple(f"other-{number}" for number in range(models - 1))
    unlike = [Rule(f"r{number}", when=model_is(f"unlike-{number}"), then=(to("p000"),)) for number in range(rules)]
    specs = [provider(f"p{number:03}", "m", *others) for number in range(providers)]
    desk = Desk(*specs, strategy=strategy, rules=unlike)

    def decide() -> None:
        desk.context.give(desk.actor, RouteQuery(f"q{len(desk.context.fans)}", RequestProfile("m"), 1600.0, 1000.0))
        answers = tuple(bid(name) for name in desk.asked())
        desk.context.give(desk.actor, Gathered(desk.context.fans[-1].key, answers))

    decide()
    return calls_of(decide)


@pytest.mark.parametrize("strategy", ["adaptive", "first", "round_robin", "least_latency", "cost"])
def test_D11_a_decision_costs_the_same_however_many_models_and_rules_there_are(strategy: str) -> None:
    assert decision_calls(strategy, 3, models=3000) == decision_calls(strategy, 3)
    assert decision_calls(strategy, 3, rules=2000) == decision_calls(strategy, 3, rules=1)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_D11_beyond_the_fan_out_a_decision_costs_the_same_however_many_providers_there_are(strategy: str) -> None:
    assert decision_calls(strategy, 500) == decision_calls(strategy, 40)


# -- E


@pytest.mark.parametrize("strategy", ["optimize_latency", "optimize_cost", "optimize_reliability"])
def test_trap_reliability_weighs_in_every_aim(strategy: str) -> None:
    same = {"latency_ewma_s": 0.3, "cost_usd": 0.01, "tokens": 1000}
    flaky, firm = bid("flaky", successes=6.0, failures=4.0, **same), bid("firm", successes=10.0, **same)
    assert winner(strategy, flaky, firm) == "firm"
    found = scores(strategy, flaky, firm)
    weight = {"optimize_latency": 0.3, "optimize_cost": 0.4, "optimize_reliability": 0.7}[strategy]
    assert found["flaky"] - found["firm"] == pytest.approx(weight * 0.4)


@pytest.mark.parametrize(("alpha", "counts"), [(0.25, 0.25), (1.0, 1.0), (0.0, 0.01), (7.0, 1.0)])
def test_E1_the_weight_of_a_new_sample_is_configured_and_clamped(alpha: float, counts: float) -> None:
    actor, context = ProviderActor(bidder(), HealthSpec(ewma_alpha=alpha), 1, None, Ref("router")), SoloContext("provider:p")
    for number, duration_s in enumerate((1.0, 2.0)):
        context.give(actor, Award(f"p{number}", "q", "m", 10, False, 5))
        context.give(actor, CallEnded(f"p{number}", "q", "p", "m", Outcome.SUCCESS, False, duration_s, usage=Usage(5, 5)))

    (said,) = context.give(actor, CallForBids("q", RequestProfile("m"), "m"))
    assert isinstance(said, Bid)
    assert said.latency_ewma_s == pytest.approx(1.0 + counts)


def test_E2_a_decision_names_provider_latency_price_and_the_next_two_as_fall_back() -> None:
    desk = Desk(*(provider(name, "m") for name in "abcd"), strategy="optimize_latency")
    bids = [
        bid(name, latency_ewma_s=0.1 * place, expected_s=place, cost_usd=place / 10) for place, name in enumerate("dcba", 1)
    ]
    plan = desk.decide(*bids)

    assert (plan.choices[0].provider, plan.choices[0].expected_s, plan.choices[0].cost_usd) == ("d", 1, 0.1)
    assert chain(plan)[1:3] == ["c", "b"]
    found = record(desk, plan.decision_id)
    assert found.chosen[:3] == ("d", "c", "b")
