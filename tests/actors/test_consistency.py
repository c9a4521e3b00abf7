"""What cannot be meant in a policy is found, with its place as in the file and the reason."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.consistency import Fault, policy_faults
from actors.naming import Server
from messages.policy import (
    ALWAYS,
    CONDITION_DEPTH_MAX,
    Action,
    ActionKind,
    ChainStep,
    Condition,
    ConditionKind,
    PoolRule,
    PoolSpec,
    Rule,
    TenantSpec,
)

FIRST = Action(ActionKind.STRATEGY, ("first",))
MODELS = frozenset({"gpt-4o", "gpt-4o-mini", "claude"})
SERVERS = (Server("a", "openai", MODELS), Server("b", "openai"), Server("c", "mistral"))
ANY_NAME = (Server("a", "openai", takes_any=True), *SERVERS[1:])
SOUND: dict[str, Any] = {
    "servers": SERVERS,
    "strategies": {"adaptive", "first", "cost"},
    "aliases": {"gpt4": "gpt-4o", "mini": "gpt-4o-mini"},
    "rules": (),
    "tenants": (),
    "pools": (),
    "default_provider": None,
    "strategy": "adaptive",
}


def found(**changed: Any) -> list[Fault]:
    return policy_faults(**{**SOUND, **changed})


def where(**changed: Any) -> list[tuple[tuple[str | int, ...], str]]:
    return [(fault.path, fault.reason) for fault in found(**changed)]


def condition(kind: ConditionKind, *names: str) -> Condition:
    return Condition(kind, names=names)


def holds_all(*parts: Condition) -> Condition:
    return Condition(ConditionKind.ALL, parts=parts)


def of_rule(*then: Action, when: Condition = ALWAYS, **changed: Any) -> list[tuple[tuple[str | int, ...], str]]:
    return [(path[2:], reason) for path, reason in where(rules=(Rule("r", when=when, then=then or (FIRST,)),), **changed)]


def redirect(model: str) -> Action:
    return Action(ActionKind.REDIRECT, (model,))


def test_a_sound_policy_has_no_faults() -> None:
    night = Condition(ConditionKind.TIME_RANGE, start_s=0.0, end_s=3600.0, zone="Europe/Berlin")
    models = Condition(ConditionKind.NOT, parts=(condition(ConditionKind.MODEL_PATTERN, "/^gpt/"),))
    rules = (
        Rule("one", when=holds_all(night, models), then=(Action(ActionKind.PROVIDERS, ("a", "b")), FIRST)),
        Rule(
            "two", when=condition(ConditionKind.MODEL, "opus", "claude"), then=(redirect("gpt-4o"), Action(ActionKind.PRIORITY))
        ),
        Rule("three", then=(Action(ActionKind.REJECT, ("maintenance_mode",)),)),
    )
    pool_rules = (PoolRule((("tier", "free"),), redirect="mini"), PoolRule((), deny=True))
    pools = (PoolSpec("gpt-4o", "cost", pool_rules), PoolSpec("claude"))
    tenants = (TenantSpec("acme", ("a",), ("a",), 0.5, "cost"), TenantSpec("none", ()), TenantSpec("all"))
    assert found(rules=rules, pools=pools, tenants=tenants, default_provider="b", strategy="first") == []


def test_an_unknown_default_provider_is_found() -> None:
    assert where(default_provider="z") == [(("default_provider",), "there is no provider 'z'")]


def test_an_unknown_strategy_is_found_wherever_it_stands() -> None:
    unknown = "there is no strategy 'luck'"
    assert where(strategy="luck") == [(("routing", "strategy"), unknown)]
    assert where(pools=(PoolSpec("claude", "luck"),)) == [(("pools", "claude", "strategy"), unknown)]
    assert where(tenants=(TenantSpec("acme", strategy="luck"),)) == [(("tenants", "acme", "strategy"), unknown)]
    assert of_rule(FIRST, Action(ActionKind.STRATEGY, ("luck",))) == [(("then", 1, "strategy"), unknown)]


def test_an_unknown_or_repeated_provider_is_found_in_actions_and_lists_of_tenants() -> None:
    unknown, twice = "there is no provider 'z'", "provider 'a' is named twice"
    assert of_rule(FIRST, Action(ActionKind.PROVIDERS, ("a", "z", "a"))) == [
        (("then", 1, "providers"), twice),
        (("then", 1, "providers"), unknown),
    ]
    tenant = TenantSpec("acme", ("a", "b", "a"), ("z", "z"))
    assert where(tenants=(tenant,)) == [
        (("tenants", "acme", "allowed_providers"), twice),
        (("tenants", "acme", "preferred_providers"), unknown),
    ]


def test_two_rules_of_one_name_are_found_at_the_second() -> None:
    rules = (Rule("r", then=(FIRST,)), Rule("s", then=(FIRST,)), Rule("r", enabled=False, then=(FIRST,)))
    assert where(rules=rules) == [(("rules", 2, "name"), "is already the name of rules[0]")]


def test_A4_a_rule_without_actions_is_allowed_and_keeps_those_after_it_away() -> None:
    assert where(rules=(Rule("r"),)) == []


def test_A4_latency_under_cannot_decide_what_comes_before_the_bids() -> None:
    latency = Condition(ConditionKind.LATENCY_UNDER, number=100.0)
    when = Condition(ConditionKind.NOT, parts=(latency,))
    too_early = "comes before anybody is asked, when latency_under is not known yet"
    for action in (Action(ActionKind.REJECT, ("maintenance_mode",)), redirect("claude")):
        assert where(rules=(Rule("r", when=when, then=(action,)),)) == [(("rules", 0, "then", 0, action.kind), too_early)]
    assert where(rules=(Rule("r", when=when, then=(FIRST,)),)) == []


def test_a_reject_beside_other_actions_and_a_second_redirect_are_found() -> None:
    reject = Action(ActionKind.REJECT, ("maintenance_mode",))
    assert of_rule(FIRST, reject) == [(("then", 1, "reject"), "what is rejected goes nowhere: reject must be the only action")]
    assert of_rule(redirect("claude"), redirect("gpt-4o")) == [(("then", 1, "redirect"), "is the second redirect of this rule")]


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (Action(ActionKind.PROVIDERS), "names no provider"),
        (Action(ActionKind.STRATEGY), "needs one name"),
        (Action(ActionKind.REDIRECT, ("claude", "gpt-4o")), "needs one name"),
        (Action(ActionKind.REJECT, ("",)), "needs a reason"),
    ],
)
def test_an_action_that_does_not_say_what_to_do_is_found(action: Action, reason: str) -> None:
    assert of_rule(action) == [(("then", 0, action.kind.value), reason)]


@pytest.mark.parametrize(
    "when",
    [
        condition(ConditionKind.MODEL, "gpt-4o"),
        condition(ConditionKind.MODEL, "gpt4", "gpt-4o"),
        holds_all(condition(ConditionKind.TENANT, "acme"), condition(ConditionKind.MODEL, "gpt4")),
        Condition(ConditionKind.ANY, parts=(condition(ConditionKind.MODEL, "gpt4"), condition(ConditionKind.MODEL, "gpt-4o"))),
    ],
)
@pytest.mark.parametrize("target", ["gpt-4o", "gpt4"])
def test_B8_a_rule_that_redirects_a_model_to_itself_is_found(when: Condition, target: str) -> None:
    assert of_rule(redirect(target), when=when) == [(("then", 0, "redirect"), f"redirects '{target}' to itself")]


@pytest.mark.parametrize(
    "when",
    [
        ALWAYS,
        condition(ConditionKind.MODEL, "gpt-4o", "claude"),
        Condition(ConditionKind.NOT, parts=(condition(ConditionKind.MODEL, "gpt-4o"),)),
        Condition(ConditionKind.ANY, parts=(condition(ConditionKind.MODEL, "gpt-4o"), condition(ConditionKind.TENANT, "t"))),
    ],
)
def test_B8_a_rule_that_redirects_others_too_is_sound(when: Condition) -> None:
    assert of_rule(redirect("gpt-4o"), when=when) == []


def test_B8_a_redirect_to_what_nobody_serves_is_found() -> None:
    nobody = "no provider serves a model 'llama'"
    assert of_rule(redirect("llama")) == [(("then", 0, "redirect"), nobody)]
    pool = PoolSpec("claude", rules=(PoolRule((), redirect="llama"),))
    assert where(pools=(pool,)) == [(("pools", "claude", "rules", 0, "redirect"), nobody)]
    assert of_rule(redirect("old"), aliases={"old": "llama"}) == [(("then", 0, "redirect"), "no provider serves a model 'old'")]


@pytest.mark.parametrize("target", ["claude", "gpt4", "a:claude", "openai/gpt-4o"])
def test_B8_a_redirect_may_name_a_model_an_alias_or_a_pin(target: str) -> None:
    assert of_rule(redirect(target)) == []


def test_B8_where_a_provider_takes_any_name_every_target_may_be_served() -> None:
    assert of_rule(redirect("llama"), servers=ANY_NAME) == []


def test_B8_a_pool_that_redirects_to_its_own_model_is_found() -> None:
    rules = (PoolRule((("tier", "free"),), redirect="gpt4"), PoolRule((), redirect="gpt-4o"))
    assert where(pools=(PoolSpec("gpt-4o", rules=rules),)) == [
        (("pools", "gpt-4o", "rules", 0, "redirect"), "redirects 'gpt-4o' to itself"),
        (("pools", "gpt-4o", "rules", 1, "redirect"), "redirects 'gpt-4o' to itself"),
    ]


def test_B4_a_pool_that_nobody_serves_is_found_unless_somebody_takes_any_name() -> None:
    empty = PoolSpec("gpt-5", strategy="cost")
    assert where(pools=(empty,)) == [(("pools", "gpt-5"), "no provider serves a model of this name")]
    assert not where(pools=(empty,), servers=ANY_NAME)


def test_D8_a_failover_chain_that_leads_to_nobody_is_found_where_it_leads_to_nobody_else() -> None:
    def chained(*steps: ChainStep) -> list[tuple[tuple[str | int, ...], str]]:
        return where(pools=(PoolSpec("gpt-4o", chain=steps),))

    at = ("pools", "gpt-4o", "failover", "chain")
    assert chained(ChainStep(("b",)), ChainStep(("c",))) == [
        (at, "no provider in it serves 'gpt-4o', and nobody else would be asked")
    ]
    assert not chained(ChainStep(("b",)), ChainStep(("c", "a")))
    assert not chained(ChainStep(("b",)), ChainStep())
    assert chained(ChainStep(("nobody",))) == [((*at, 0), "there is no provider 'nobody'")]


def test_B8_a_pool_rule_either_denies_or_redirects() -> None:
    rules = (PoolRule((("x", "y"),), deny=True, redirect="claude"), PoolRule(()))
    assert where(pools=(PoolSpec("gpt-4o", rules=rules),)) == [
        (("pools", "gpt-4o", "rules", 0), "must either deny or redirect, not both"),
        (("pools", "gpt-4o", "rules", 1), "must either deny or redirect"),
    ]


def test_A7_a_circle_of_aliases_is_found_once_and_what_leads_into_it_is_not_blamed() -> None:
    assert where(aliases={"into": "x", "x": "y", "y": "z", "z": "x", "fine": "claude", "self": "self"}) == [
        (("aliases", "x"), "leads back to itself"),
        (("aliases", "self"), "leads back to itself"),
    ]


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("abcdefg")))
def test_A7_aliases_are_faulty_exactly_if_following_one_never_ends(aliases: dict[str, str]) -> None:
    def ends(name: str) -> bool:
        for _ in range(len(aliases) + 1):
            if name not in aliases:
                return True
            name = aliases[name]
        return False

    assert (found(aliases=aliases) == []) is all(ends(name) for name in aliases)


def test_faults_of_a_condition_are_found_where_they_are() -> None:
    bad = (
        condition(ConditionKind.MODEL_PATTERN, "/(/"),
        Condition(ConditionKind.NOT),
        Condition(ConditionKind.NOT, parts=(Condition(ConditionKind.TIME_RANGE, zone="Mars"),)),
        Condition(ConditionKind.ANY, parts=(ALWAYS, condition(ConditionKind.MODEL))),
        condition(ConditionKind.MODEL_PATTERN),
        condition(ConditionKind.MODEL_PATTERN, "/(a+)+/"),
    )
    paths = [path for path, _ in of_rule(when=holds_all(*bad))]
    reasons = [reason for _, reason in of_rule(when=holds_all(*bad))]
    assert paths == [
        ("when", "all", 0, "model_pattern"),
        ("when", "all", 1, "not"),
        ("when", "all", 2, "not", "time_range", "zone"),
        ("when", "all", 3, "any", 1, "model"),
        ("when", "all", 4, "model_pattern"),
        ("when", "all", 5, "model_pattern"),
    ]
    assert reasons[0].startswith("is no regular expression: ")
    assert reasons[1:5] == ["needs one condition", "there is no time zone 'Mars'", "names nothing", "needs one pattern"]
    assert "too long" in reasons[5]


def test_conditions_nested_too_deep_are_found_at_the_first_that_is() -> None:
    when = ALWAYS
    for _ in range(CONDITION_DEPTH_MAX - 1):
        when = Condition(ConditionKind.NOT, parts=(when,))
    assert of_rule(when=when) == []
    when = Condition(ConditionKind.NOT, parts=(when,))
    assert of_rule(when=when) == [(("when", *["not"] * CONDITION_DEPTH_MAX), "conditions are nested deeper than 8 levels")]
