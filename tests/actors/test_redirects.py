"""Redirects that lead in a circle are found in the configuration, with who sends whom where and a request that goes there."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.naming import Naming, Server
from actors.redirects import STEPS_MAX, Circle, Redirects
from actors.router.policy import Course, Policy
from actors.router.strategies import STRATEGIES
from actors.router.table import RoutingTable
from messages.control import ModelSpec
from messages.policy import (
    ALWAYS,
    CRITICAL,
    HIGH,
    NORMAL,
    Action,
    ActionKind,
    Condition,
    ConditionKind,
    PoolRule,
    PoolSpec,
    Rule,
)
from messages.routing import Hints, RequestProfile, RouteError
from tests.actors.router_kit import provider, snapshot
from tests.actors.test_consistency import ANY_NAME, MODELS, SERVERS, condition, found, holds_all, redirect, where

NIGHT = Condition(ConditionKind.TIME_RANGE, start_s=22 * 3600.0, end_s=6 * 3600.0, zone="Europe/Berlin")
DAY = Condition(ConditionKind.TIME_RANGE, start_s=6 * 3600.0, end_s=22 * 3600.0, zone="Europe/Berlin")
TOOLS = Condition(ConditionKind.HAS_TOOLS)
STAYS = Action(ActionKind.STRATEGY, ("first",))


def model(*names: str) -> Condition:
    return condition(ConditionKind.MODEL, *names)


def negated(part: Condition) -> Condition:
    return Condition(ConditionKind.NOT, parts=(part,))


def there_and_back(there: Condition = ALWAYS, back: Condition = ALWAYS, **fields: Any) -> tuple[Rule, Rule]:
    """Two rules that send requests for ``gpt-4o`` to ``claude`` and back, each where its own condition holds too."""
    return (
        Rule("there", when=holds_all(model("gpt-4o"), there), then=(redirect("claude"),)),
        Rule("back", when=holds_all(model("claude"), back), then=(STAYS, redirect("gpt-4o")), **fields),
    )


def doubts(rules: Sequence[Rule], servers: Sequence[Server] = SERVERS, pins: Sequence[str] = ()) -> list[Circle]:
    """What is left open of ``rules`` after the search for what is certain."""
    naming = Naming(servers, None, {})
    search = Redirects(rules, (), naming.place, naming.model_of, sorted(MODELS), pins)
    assert len(list(search.circles())) == len(found(rules=rules, servers=servers))
    return list(search.doubts())


def test_B8_two_rules_that_redirect_to_each_other_are_found_once_and_both_are_named() -> None:
    assert where(rules=there_and_back()) == [
        (
            ("rules", 0, "then", 0, "redirect"),
            "leads in a circle: rule 'there' sends 'gpt-4o' to 'claude', rule 'back' sends 'claude' to 'gpt-4o'; "
            "this is where a request for 'gpt-4o' would go",
        )
    ]


def test_B8_a_circle_is_found_under_an_alias_and_through_three() -> None:
    rules = (
        Rule("one", when=model("gpt4"), then=(redirect("mini"),)),
        Rule("two", when=condition(ConditionKind.MODEL_PATTERN, "*-mini"), then=(redirect("claude"),)),
        Rule("three", when=model("claude"), then=(redirect("gpt4"),)),
    )
    ((path, reason),) = where(rules=rules)
    assert path == ("rules", 0, "then", 0, "redirect")
    assert reason.endswith("this is where a request for 'gpt4' would go")
    assert [name in reason for name in ("'one'", "'two'", "'three'")] == [True] * 3


@pytest.mark.parametrize(
    ("there", "back", "who"),
    [
        (condition(ConditionKind.TENANT, "acme", "b"), condition(ConditionKind.TENANT, "b"), "for 'gpt-4o' of tenant 'b'"),
        (condition(ConditionKind.USER, "ann"), ALWAYS, "for 'gpt-4o' of user 'ann'"),
        (condition(ConditionKind.REGION, "eu"), negated(condition(ConditionKind.REGION, "us")), "for region 'eu'"),
        (condition(ConditionKind.REGION, "eu"), condition(ConditionKind.REGION, "us"), "for region 'eu' or 'us'"),
        (TOOLS, Condition(ConditionKind.HAS_VISION), "with tools with pictures"),
        (Condition(ConditionKind.TOKEN_COUNT_OVER, number=10.0), ALWAYS, "of 11 tokens"),
        (Condition(ConditionKind.MIN_PRIORITY, number=float(HIGH)), ALWAYS, "of priority high"),
        (NIGHT, negated(DAY), "for 'gpt-4o'"),
    ],
)
def test_B8_a_circle_that_only_some_requests_take_is_found_with_such_a_request(
    there: Condition, back: Condition, who: str
) -> None:
    (fault,) = found(rules=there_and_back(there, back))
    assert who in fault.reason


@pytest.mark.parametrize(
    ("there", "back"),
    [
        (condition(ConditionKind.TENANT, "acme"), condition(ConditionKind.TENANT, "umbrella")),
        (TOOLS, negated(TOOLS)),
        (NIGHT, DAY),
        (
            Condition(ConditionKind.TOKEN_COUNT_OVER, number=10.0),
            negated(Condition(ConditionKind.TOKEN_COUNT_OVER, number=5.0)),
        ),
        (ALWAYS, Condition(ConditionKind.NEVER)),
    ],
)
def test_B8_rules_that_never_meet_are_sound(there: Condition, back: Condition) -> None:
    assert found(rules=there_and_back(there, back)) == []


def test_B8_a_listed_name_is_itself_and_no_alias_also_where_a_provider_takes_any_name() -> None:
    rules = (
        Rule("there", when=model("gpt4"), then=(redirect("claude"),)),
        Rule("back", when=model("claude"), then=(redirect("gpt-4o"),)),
    )
    assert len(found(rules=rules, servers=ANY_NAME)) == 1
    lists_it = Server("b", "openai", frozenset({"gpt4"}))
    assert found(rules=rules, servers=(ANY_NAME[0], lists_it)) == []


@pytest.mark.parametrize("pin", ["a:claude", "openai/claude", "mistral:claude", "c/claude"])
def test_B8_a_circle_over_a_pin_to_a_provider_or_a_kind_is_found(pin: str) -> None:
    both = (SERVERS[0], Server("c", "mistral", frozenset({"claude"})))
    rules = (
        Rule("there", when=model("gpt-4o"), then=(redirect(pin),)),
        Rule("back", when=model("claude"), then=(redirect("gpt-4o"),)),
    )
    (fault,) = found(rules=rules, servers=both)
    assert fault.reason.startswith(f"leads in a circle: rule 'there' sends 'gpt-4o' to '{pin}', rule 'back' sends '{pin}' to")


def test_B8_a_pin_to_who_does_not_serve_the_model_leads_nowhere_and_closes_no_circle() -> None:
    rules = (
        Rule("there", when=model("gpt-4o"), then=(redirect("b:claude"),)),
        Rule("back", when=model("claude"), then=(redirect("gpt-4o"),)),
    )
    assert found(rules=rules) == []


def test_B8_a_pin_to_everybody_who_has_a_model_is_that_model() -> None:
    # What is redirected to where it is stays there, whatever the rules after it say.
    rules = (Rule("pins", 9, when=model("claude"), then=(redirect("a:claude"),)), Rule("all", then=(redirect("claude"),)))
    assert found(rules=rules) == []
    (fault,) = found(rules=rules, servers=(*SERVERS, Server("d", "mistral", frozenset({"claude"}))))
    assert "sends 'claude' to 'a:claude', rule 'all' sends 'a:claude' to 'claude'" in fault.reason


def test_B8_a_circle_that_hangs_on_a_price_is_a_doubt_and_is_answered_500_when_it_is_walked() -> None:
    rules = there_and_back(ALWAYS, Condition(ConditionKind.COST_UNDER, number=0.01))
    assert found(rules=rules) == []
    (doubt,) = doubts(rules)
    assert doubt.hangs_on_prices
    assert doubt.reason == (
        "may lead in a circle: rule 'there' sends 'gpt-4o' to 'claude', rule 'back' sends 'claude' to 'gpt-4o'; "
        "this is where a request for 'gpt-4o' could go, as prices are"
    )

    for price, error in ((2.0, RouteError.SELECTION_FAILED), (200.0, None)):
        models = tuple(ModelSpec(name, name, price, price) for name in ("gpt-4o", "claude"))
        config = snapshot(provider("a", models=models), strategy="first", rules=rules)
        course = Policy(config, RoutingTable.build(config), STRATEGIES).course(RequestProfile("gpt-4o"), lambda: 0.0)
        assert isinstance(course, Course)
        assert course.error is error


def test_B8_a_circle_that_only_a_pin_of_the_clients_would_walk_is_answered_500_too() -> None:
    pinned = condition(ConditionKind.MODEL_PATTERN, "/^a:/")
    way = ("claude", "gpt-4o", "claude")
    rules = tuple(Rule(f"r{n}", when=pinned, then=(redirect(target),)) for n, target in enumerate(way))
    servers = (*SERVERS, Server("d", "mistral", MODELS))
    assert found(rules=rules, servers=servers) == []
    (doubt,) = doubts(rules, servers, pins=("a:gpt-4o", "a:claude", "d:claude"))
    assert doubt.walker.model == "a:gpt-4o"
    assert not doubt.hangs_on_prices

    config = snapshot(*(provider(name, *sorted(MODELS)) for name in "ad"), strategy="first", rules=rules)
    policy = Policy(config, RoutingTable.build(config), STRATEGIES)
    assert is_lost(policy, RequestProfile("a:gpt-4o"))


@pytest.mark.parametrize("is_first", [True, False])
def test_B8_a_rule_that_a_price_may_keep_out_of_the_way_leaves_a_doubt(is_first: bool) -> None:
    cheap = Condition(ConditionKind.COST_UNDER, number=0.01)
    stays = Rule("stays", 9 if is_first else -9, when=holds_all(model("claude"), cheap), then=(STAYS,))
    rules = (*there_and_back(), stays)

    assert len(found(rules=rules)) == (0 if is_first else 1)
    assert len(doubts(rules)) == (1 if is_first else 0)


def test_B8_prices_that_lead_nowhere_but_on_leave_no_doubt() -> None:
    dear = negated(Condition(ConditionKind.COST_UNDER, number=0.01))
    rules = [Rule("away", when=holds_all(model(one), dear), then=(redirect("claude"),)) for one in ("gpt-4o", "gpt-4o-mini")]
    assert doubts((rules[0], replace(rules[1], name="away too"))) == []


def test_B8_ways_that_prices_fork_are_tried_in_bounded_number() -> None:
    cheap = Condition(ConditionKind.COST_UNDER, number=0.01)
    names = [f"m{n}" for n in range(12)]
    every = [
        Rule(f"r{one}-{other}", when=holds_all(model(one), cheap), then=(redirect(other),))
        for place, one in enumerate(names)
        for other in names[place + 1 :]
    ]
    search = Redirects(every, (), str, str)
    assert list(search.circles()) == []
    assert all(circle.hangs_on_prices for circle in search.doubts())
    assert search.unfinished
    assert search.steps < STEPS_MAX


def test_B8_a_rule_that_is_switched_off_closes_no_circle() -> None:
    assert found(rules=there_and_back(enabled=False)) == []


def test_B8_a_rule_that_is_asked_before_keeps_a_request_out_of_a_circle() -> None:
    stays = Rule("stays", 9, when=model("claude"), then=(STAYS,))
    assert found(rules=(*there_and_back(), stays)) == []
    (fault,) = found(rules=(*there_and_back(), Rule("stays", 9, when=holds_all(model("claude"), negated(TOOLS)))))
    assert "with tools" in fault.reason
    assert found(rules=(*there_and_back(), Rule("lower", -9, when=model("claude")))) != []


def test_B8_a_raised_priority_is_carried_along() -> None:
    urgent = Condition(ConditionKind.MIN_PRIORITY, number=float(CRITICAL))
    raising = Rule("there", when=model("gpt-4o"), then=(redirect("claude"), Action(ActionKind.PRIORITY, priority=CRITICAL)))
    back = Rule("back", when=holds_all(model("claude"), urgent), then=(redirect("gpt-4o"),))
    (fault,) = found(rules=(raising, back))
    assert fault.reason.endswith("a request for 'gpt-4o' would go")


def test_B8_to_send_everybody_to_one_model_is_no_circle() -> None:
    assert found(rules=(Rule("all", then=(redirect("gpt-4o"),)),)) == []
    assert (
        found(rules=(Rule("all", then=(redirect("gpt-4o"),)), Rule("mini", 9, when=model("claude"), then=(redirect("mini"),))))
        == []
    )


def test_B8_pools_that_redirect_their_callers_to_each_other_are_found() -> None:
    free = (("tier", "free"),)
    pools = (
        PoolSpec("claude", rules=(PoolRule(free, redirect="gpt4"),)),
        PoolSpec("gpt-4o", rules=(PoolRule((("tier", "paid"),), deny=True), PoolRule(free, redirect="mini"))),
        PoolSpec("gpt-4o-mini", rules=(PoolRule((("team", "x"),), redirect="gpt-4o"),)),
    )
    assert where(pools=pools) == [
        (
            ("pools", "gpt-4o", "rules", 1, "redirect"),
            "leads in a circle: the pool of 'gpt-4o' sends 'gpt-4o' to 'gpt-4o-mini', the pool of 'gpt-4o-mini' sends "
            "'gpt-4o-mini' to 'gpt-4o'; this is where a request for 'claude' whose key has team=x, tier=free would go",
        )
    ]
    denied_first = (PoolRule(free, deny=True), PoolRule((), redirect="gpt-4o"))
    assert (
        found(pools=(PoolSpec("gpt-4o", rules=(PoolRule(free, redirect="mini"),)), PoolSpec("gpt-4o-mini", rules=denied_first)))
        == []
    )


def test_B8_a_pool_and_a_rule_that_redirect_to_each_other_are_found() -> None:
    pool = PoolSpec("gpt-4o", rules=(PoolRule((("tier", "free"),), redirect="mini"),))
    rule = Rule("up", when=model("gpt-4o-mini"), then=(redirect("gpt-4o"),))
    ((path, reason),) = where(rules=(rule,), pools=(pool,))
    assert path == ("rules", 0, "then", 0, "redirect")
    assert "rule 'up'" in reason
    assert "the pool of 'gpt-4o'" in reason
    assert "tier=free" in reason


def test_B8_a_rule_that_is_wrong_by_itself_is_told_and_hides_no_circle_of_others() -> None:
    wrong = Rule("wrong", when=condition(ConditionKind.MODEL_PATTERN, "/(/"), then=(redirect("claude"),))
    assert [path for path, _ in where(rules=(wrong, *there_and_back()))] == [
        ("rules", 0, "when", "model_pattern"),
        ("rules", 1, "then", 0, "redirect"),
    ]


def staying(rule: Rule) -> Rule:
    return replace(rule, priority=9, then=(STAYS,))


def test_B8_ten_thousand_rules_cost_a_bounded_number_of_looks() -> None:
    chain = [Rule(f"r{n}", when=model(f"m{n}"), then=(redirect(f"m{n + 1}"),)) for n in range(5000)]
    anybody = [Rule(f"t{n}", when=condition(ConditionKind.TENANT, f"t{n}"), then=(redirect(f"m{n}"),)) for n in range(5000)]
    looked = Redirects([*chain, *anybody], (), str, str)
    assert list(looked.circles()) == []
    assert looked.steps < 250_000
    assert looked.unfinished
    # And where few rules redirect, the many that are asked before cost one look each.
    theirs = there_and_back(condition(ConditionKind.TENANT, "theirs"))
    few = Redirects([*theirs, *(staying(rule) for rule in anybody)], (), str, str)
    assert [circle.walker.tenant for circle in few.circles()] == ["theirs"]


def test_B8_pools_with_many_labels_cost_a_bounded_number_of_looks() -> None:
    names = [f"m{n}" for n in range(100)]
    asked: list[str] = []

    def public(name: str) -> str:
        asked.append(name)
        return name

    pools = [PoolSpec(name, rules=tuple(PoolRule((("to", to),), redirect=to) for to in names)) for name in names]
    assert list(Redirects((), pools, public, str).circles()) == []
    assert len(asked) < 2 * STEPS_MAX


def test_B8_a_search_that_stops_at_its_bounds_names_what_it_did_not_see_through() -> None:
    names = [f"m{n}" for n in range(1000)]
    tenants = [condition(ConditionKind.TENANT, f"t{n}") for n in range(9)]
    ring = [
        Rule(f"{one}-{place}", when=holds_all(model(one), tenant, Condition(ConditionKind.NEVER)), then=(redirect(other),))
        for one, other in zip(names, [*names[1:], names[0]], strict=True)
        for place, tenant in enumerate(tenants)
    ]
    search = Redirects(ring, [PoolSpec("m999", rules=(PoolRule(_LABELS, redirect="m0"),))], str, str, names)

    assert list(search.circles()) == []
    assert search.steps < 2 * STEPS_MAX
    told = list(search.unfinished)
    assert told[-2:] == ["rule 'm999-8'", "the pool of 'm999'"]
    assert "rule 'm0-0'" not in told or len(told) == len(ring) + 1
    assert not list(Redirects(ring[:18], (), str, str, names).circles())


# -- held to the router

NAMES = ("m", "n", "o", "old")
PINS = ("a:m", "b/m", "b:n", "openai:o", "mistral/m")
FLEET = {"a": ("openai", ("m", "n", "o")), "b": ("mistral", ("m", "o")), "c": ("openai", ("n",))}
ALIASES = {"old": "m"}
_LEAVES = st.one_of(
    st.sampled_from([ALWAYS, Condition(ConditionKind.NEVER), TOOLS]),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=2).map(lambda names: model(*names)),
    st.sampled_from(["m", "n*", "/o|n/"]).map(lambda pattern: condition(ConditionKind.MODEL_PATTERN, pattern)),
    st.sampled_from(["t", "u"]).map(lambda name: condition(ConditionKind.TENANT, name)),
    st.just(Condition(ConditionKind.MIN_PRIORITY, number=float(CRITICAL))),
)
_CONDITIONS = st.recursive(
    _LEAVES,
    lambda parts: st.one_of(
        parts.map(negated),
        st.lists(parts, min_size=1, max_size=2).map(lambda found: Condition(ConditionKind.ALL, parts=tuple(found))),
        st.lists(parts, min_size=1, max_size=2).map(lambda found: Condition(ConditionKind.ANY, parts=tuple(found))),
    ),
    max_leaves=3,
)
_ACTIONS = st.one_of(
    st.sampled_from(NAMES + PINS).map(lambda name: (redirect(name),)),
    st.sampled_from(NAMES).map(lambda name: (redirect(name), Action(ActionKind.PRIORITY, priority=CRITICAL))),
    st.just((STAYS,)),
)
_LABELS = (("k", "v"),)
_POOLS = st.lists(
    st.builds(
        lambda name, target: PoolSpec(name, rules=(PoolRule(_LABELS, redirect=target),)),
        st.sampled_from(["m", "n", "o"]),
        st.sampled_from(NAMES),
    ),
    max_size=1,
)


@st.composite
def rule_books(draw: st.DrawFn) -> list[Rule]:
    # Most rules of most files are for models.
    conditions = st.one_of(
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=2).map(lambda names: model(*names)), _CONDITIONS
    )
    parts = draw(st.lists(st.tuples(conditions, _ACTIONS, st.integers(0, 2), st.booleans()), max_size=4))
    return [
        Rule(f"r{n}", priority, enabled or n % 2 == 0, when, then) for n, (when, then, priority, enabled) in enumerate(parts)
    ]


def everybody(names: tuple[str, ...]) -> Iterator[RequestProfile]:
    """Every request for ``names`` that can differ for these rules."""
    for name, tenant, needs, priority, labels in product(
        names, ("", "t", "u"), ((), ("tools",)), (NORMAL, CRITICAL), ((), _LABELS)
    ):
        yield RequestProfile(name, tenant=tenant, needs=needs, hints=Hints(priority=priority), labels=labels)


def circles(rules: list[Rule], pools: list[PoolSpec]) -> list[Circle]:
    naming = Naming([Server(name, kind, frozenset(models)) for name, (kind, models) in FLEET.items()], "a", ALIASES)
    return list(Redirects(rules, pools, naming.place, naming.model_of, NAMES).circles())


@settings(max_examples=200, deadline=None)
@given(rule_books(), _POOLS)
def test_B8_a_circle_is_found_exactly_where_the_router_would_answer_500(rules: list[Rule], pools: list[PoolSpec]) -> None:
    fleet = [provider(name, *models, kind=kind) for name, (kind, models) in FLEET.items()]
    config = snapshot(*fleet, strategy="first", aliases=ALIASES, rules=rules, pools=pools)
    policy = Policy(config, RoutingTable.build(config), STRATEGIES)
    told = circles(rules, pools)

    if any(is_lost(policy, ask) for ask in everybody(NAMES)):
        assert told
    if not any(is_lost(policy, ask) for ask in everybody(NAMES + PINS)):
        assert not told
    for circle in told:
        walker = circle.walker
        needs = ("tools",) if walker.has_tools else ()
        ask = RequestProfile(
            walker.model, tenant=walker.tenant, needs=needs, hints=Hints(priority=walker.priority), labels=walker.labels
        )
        assert is_lost(policy, ask), walker


LONE_PINS = ("m", "n", "a/m", "a/n", "b/n")
"""``a`` alone has ``m``; ``n`` has another provider too."""
_PIN_RULES = st.lists(
    st.tuples(st.one_of(st.just(ALWAYS), st.sampled_from(LONE_PINS).map(model), st.just(TOOLS)), st.sampled_from(LONE_PINS)),
    max_size=4,
)
_PIN_POOLS = st.lists(
    st.tuples(st.sampled_from(["m", "n"]), st.sampled_from(LONE_PINS)), max_size=2, unique_by=lambda entry: entry[0]
)


@settings(max_examples=200, deadline=None)
@given(_PIN_RULES, _PIN_POOLS)
@example([(ALWAYS, "a/m"), (ALWAYS, "m")], [])
def test_B8_among_pins_too_what_is_found_is_a_circle(ways: list[tuple[Condition, str]], pooled: list[tuple[str, str]]) -> None:
    rules = [Rule(f"r{n}", when=when, then=(redirect(target),)) for n, (when, target) in enumerate(ways)]
    pools = [PoolSpec(name, rules=(PoolRule(_LABELS, redirect=target),)) for name, target in pooled]
    config = snapshot(provider("a", "m", "n"), provider("b", "n"), strategy="first", rules=rules, pools=pools)
    policy = Policy(config, RoutingTable.build(config), STRATEGIES)
    naming = Naming([Server("a", "openai", frozenset("mn")), Server("b", "openai", frozenset("n"))], "a", {})
    for circle in Redirects(rules, pools, naming.place, naming.model_of, LONE_PINS).circles():
        walker = circle.walker
        needs = ("tools",) if walker.has_tools else ()
        assert is_lost(policy, RequestProfile(walker.model, needs=needs, labels=walker.labels)), walker


_PRICED = st.one_of(_CONDITIONS, st.just(Condition(ConditionKind.COST_UNDER, number=0.01)))
_PRICED_RULES = st.lists(
    st.tuples(st.sampled_from(["m", "n", "o"]), st.one_of(_PRICED, _PRICED.map(negated)), st.sampled_from(["m", "n", "o"])),
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(_PRICED_RULES, st.tuples(*[st.sampled_from([None, 1.0, 100.0])] * 3))
def test_B8_where_prices_lead_in_a_circle_there_was_a_doubt(
    ways: list[tuple[str, Condition, str]], prices: tuple[float | None, ...]
) -> None:
    rules = [Rule(f"r{n}", when=holds_all(model(name), when), then=(redirect(to),)) for n, (name, when, to) in enumerate(ways)]
    models = tuple(ModelSpec(name, name, price, price) for name, price in zip("mno", prices, strict=True))
    config = snapshot(provider("a", models=models), strategy="first", rules=rules)
    policy = Policy(config, RoutingTable.build(config), STRATEGIES)
    naming = Naming([Server("a", "openai", frozenset("mno"))], "a", {})
    search = Redirects(rules, (), naming.place, naming.model_of, tuple("mno"))

    if any(is_lost(policy, ask) for ask in everybody(("m", "n", "o"))):
        assert [*search.circles(), *search.doubts()]


def is_lost(policy: Policy, profile: RequestProfile) -> bool:
    course = policy.course(profile, lambda: 0.0)
    return isinstance(course, Course) and course.error is RouteError.SELECTION_FAILED
