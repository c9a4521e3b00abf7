"""The index over rules is never wrong: asking those it tells finds what asking all of them finds."""

import sys
from collections.abc import Callable
from itertools import product
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.router.rules import book as books
from actors.router.rules.book import RuleBook
from actors.router.rules.compiled import CompiledRule, compile_rule
from actors.router.rules.facts import Facts, Terms
from messages.policy import ALWAYS, Condition, ConditionKind, Rule
from messages.routing import Hints, RequestProfile

MODELS = ("a", "b", "ab", "")
TENANTS = ("t", "u", "")


def model(*names: str) -> Condition:
    return Condition(ConditionKind.MODEL, names=names)


def tenant(*names: str) -> Condition:
    return Condition(ConditionKind.TENANT, names=names)


def every(*parts: Condition) -> Condition:
    return Condition(ConditionKind.ALL, parts=parts)


def some(*parts: Condition) -> Condition:
    return Condition(ConditionKind.ANY, parts=parts)


def negated(part: Condition) -> Condition:
    return Condition(ConditionKind.NOT, parts=(part,))


def told(book: RuleBook, requested: str, public: str = "", of: str = "") -> list[str]:
    return [compiled.rule.name for compiled in book.candidates(requested, public or requested, of)]


def first(asked: tuple[CompiledRule, ...], facts: Facts, terms: Terms | None) -> str | None:
    return next((compiled.rule.name for compiled in asked if compiled.verdict(facts, terms) is not False), None)


names = st.sampled_from(MODELS)
leaves = st.one_of(
    st.lists(names, max_size=3).map(lambda found: model(*found)),
    st.lists(st.sampled_from(TENANTS), max_size=2).map(lambda found: tenant(*found)),
    st.sampled_from(["a*", "?b", "/^a/", "b", "/(a|b)$/"]).map(
        lambda text: Condition(ConditionKind.MODEL_PATTERN, names=(text,))
    ),
    st.sampled_from(
        [
            ALWAYS,
            Condition(ConditionKind.NEVER),
            Condition(ConditionKind.REGION, names=("eu",)),
            Condition(ConditionKind.MIN_PRIORITY, number=2),
            Condition(ConditionKind.HAS_TOOLS),
            Condition(ConditionKind.TIME_RANGE, start_s=3600.0, end_s=7200.0),
            Condition(ConditionKind.COST_UNDER, number=0.01),
            Condition(ConditionKind.LATENCY_UNDER, number=100.0),
        ]
    ),
)
conditions = st.recursive(
    leaves,
    lambda parts: (
        st.lists(parts, max_size=3).map(lambda found: every(*found))
        | st.lists(parts, max_size=3).map(lambda found: some(*found))
        | parts.map(negated)
    ),
    max_leaves=8,
)
rules = st.lists(st.builds(Rule, st.just(""), st.integers(-2, 2), st.booleans(), conditions), max_size=8).map(
    lambda found: [Rule(str(place), rule.priority, rule.enabled, rule.when) for place, rule in enumerate(found)]
)
requests = st.builds(
    lambda written, public, of, region, tools, wall, priority: Facts(
        RequestProfile(model=written, needs=("tools",) if tools else (), tenant=of, hints=Hints(regions=(region,))),
        public,
        wall,
        priority,
    ),
    names,
    names,
    st.sampled_from(TENANTS),
    st.sampled_from(["", "eu"]),
    st.booleans(),
    st.sampled_from([0.0, 5000.0]),
    st.integers(0, 3),
)
terms = st.none() | st.builds(Terms, st.sampled_from([None, 0.001, 1.0]), st.sampled_from([None, 0.01, 1.0]), st.booleans())


@given(rules, st.lists(st.tuples(requests, terms), min_size=1, max_size=4))
@settings(max_examples=400)
def test_D7_the_first_match_of_the_index_is_the_first_match_of_all(
    given_rules: list[Rule], asked: list[tuple[Facts, Terms | None]]
) -> None:
    book = RuleBook.build(given_rules)
    in_order = sorted((rule for rule in given_rules if rule.enabled), key=lambda rule: rule.priority, reverse=True)
    everyone = tuple(compile_rule(rule) for rule in in_order)
    for facts, of in asked:
        found = book.candidates(facts.profile.model, facts.model, facts.profile.tenant)
        assert first(found, facts, of) == first(everyone, facts, of)
        # Not the first alone: what is told is all of them but some that cannot match, in their order.
        matching = [rule.rule.name for rule in everyone if rule.verdict(facts, of) is not False]
        names_told = [rule.rule.name for rule in found]
        assert [name for name in names_told if name in matching] == matching
        assert [rule.rule.name for rule in everyone if rule.rule.name in names_told] == names_told


def test_A4_the_highest_priority_is_asked_first_and_equals_in_the_order_given() -> None:
    book = RuleBook.build([Rule("low", -1), Rule("one", 5), Rule("two", 5), Rule("high", 9)])
    assert told(book, "m") == ["high", "one", "two", "low"]


def test_D7_a_rule_switched_off_is_never_told_but_keeps_its_name() -> None:
    book = RuleBook.build([Rule("on"), Rule("off", 9, enabled=False)])
    assert told(book, "m") == ["on"]
    assert book.names == ("on", "off")


def test_D7_without_rules_nobody_is_concerned() -> None:
    assert RuleBook.build([]).candidates("m", "m", "t") == ()
    assert RuleBook.build([Rule("off", enabled=False)]).names == ("off",)


def test_D7_rules_for_other_models_and_tenants_are_not_asked() -> None:
    book = RuleBook.build([Rule(f"r{n}", when=every(model(f"m{n}"), tenant(f"t{n}"))) for n in range(100)])
    assert told(book, "m7", of="t7") == ["r7"]
    assert told(book, "m7", of="t8") == []
    assert told(book, "m7") == []
    assert told(book, "unheard") == []


TOOLS = Condition(ConditionKind.HAS_TOOLS)
SHAPES: dict[str, Callable[[int], Condition]] = {
    "a model": lambda n: model(f"m{n}", f"n{n}"),
    "a tenant": lambda n: tenant(f"t{n}"),
    "a model among much": lambda n: every(TOOLS, every(model(f"m{n}"), some(TOOLS, ALWAYS))),
    "a tenant among much": lambda n: every(TOOLS, tenant(f"t{n}"), negated(TOOLS)),
    "a model or a tenant": lambda n: some(model(f"m{n}"), every(TOOLS, tenant(f"t{n}"))),
    "a model and a tenant": lambda n: every(model("common"), tenant(f"t{n}")),
    "either of two for a tenant": lambda n: every(some(model(f"m{n}"), model(f"n{n}")), tenant("common")),
    "not what it is not": lambda n: negated(some(negated(model(f"m{n}")), TOOLS)),
    "none of both": lambda n: negated(every(negated(model(f"m{n}")), negated(tenant(f"t{n}")))),
    "two tenants at once": lambda n: every(tenant("common", f"t{n}"), tenant("other", f"t{n}")),
    "never": lambda n: some(Condition(ConditionKind.NEVER), negated(ALWAYS)),
}


def calls_for_a_new_name(count: int, shape: Callable[[int], Condition]) -> int:
    """Functions called to find out which of so many rules may concern a request that none of them concerns."""
    book = RuleBook.build([Rule(f"r{number}", when=shape(number)) for number in range(count)])
    calls = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(note)
    try:
        found = book.candidates("never-seen", "never-seen", "stranger")
    finally:
        sys.setprofile(None)
    assert found == ()
    return calls


@pytest.mark.parametrize("shape", SHAPES)
def test_D7_D11_rules_that_cannot_match_cost_nothing_even_for_a_name_never_seen_before(shape: str) -> None:
    assert calls_for_a_new_name(500, SHAPES[shape]) == calls_for_a_new_name(1, SHAPES[shape])


def test_D7_patterns_that_do_not_fit_the_name_are_asked_once_not_each_time() -> None:
    pattern = Condition(ConditionKind.MODEL_PATTERN, names=("claude-*",))
    book = RuleBook.build([Rule("claude", when=every(pattern, Condition(ConditionKind.HAS_TOOLS)))])
    assert told(book, "gpt-4o") == []
    assert told(book, "latest", public="claude-3-haiku") == ["claude"]


def test_D7_what_a_name_leads_to_is_worked_out_once() -> None:
    book = RuleBook.build([Rule("m", when=model("m")), Rule("tools", when=TOOLS)])
    assert told(book, "m") == ["m", "tools"]
    assert book.candidates("m", "m", "t") is book.candidates("m", "m", "t")


def test_D7_two_models_demanded_at_once_are_met_by_the_two_names_of_a_request() -> None:
    book = RuleBook.build([Rule("both", when=every(model("gpt4"), model("gpt-4o")))])
    assert told(book, "gpt4", public="gpt-4o") == ["both"]
    assert told(book, "gpt-4o") == []


def test_D7_either_a_model_or_a_tenant_is_found_by_both() -> None:
    book = RuleBook.build([Rule("either", when=some(model("m"), tenant("t")))])
    assert told(book, "m") == ["either"]
    assert told(book, "x", of="t") == ["either"]
    assert told(book, "x") == []


def test_D7_all_but_one_model_is_found_by_every_other_name() -> None:
    book = RuleBook.build([Rule("rest", when=negated(model("m")))])
    assert told(book, "x") == ["rest"]
    assert told(book, "m") == []


def test_trap_what_is_cached_is_no_match_so_region_and_time_still_count() -> None:
    eu_at_night = every(
        Condition(ConditionKind.REGION, names=("eu",)), Condition(ConditionKind.TIME_RANGE, start_s=79_200.0, end_s=21_600.0)
    )
    book = RuleBook.build([Rule("eu", when=every(model("m"), tenant("t"), eu_at_night))])

    def matched(region: str, wall: float, priority: int) -> str | None:
        profile = RequestProfile(model="m", tenant="t", hints=Hints(regions=(region,)))
        return first(book.candidates("m", "m", "t"), Facts(profile, "m", wall, priority), None)

    for region, wall, priority in product(("eu", "us"), (0.0, 43_200.0), (1, 3)):
        assert matched(region, wall, priority) == ("eu" if region == "eu" and wall == 0.0 else None)


def test_D7_the_cache_is_bounded_and_what_it_forgot_is_found_again() -> None:
    book = RuleBook.build([Rule("m", when=model("m")), Rule("any", when=Condition(ConditionKind.HAS_TOOLS))])
    before = told(book, "m")
    for number in range(2 * books.CACHE_CELLS // 16):
        book.candidates(f"made-up-{number}", "x", "t")
    assert len(book._cache) * 16 <= books.CACHE_CELLS
    assert told(book, "m") == before == ["m", "any"]


def test_D7_conditions_too_wide_for_the_index_are_still_found() -> None:
    wide = every(model(*(f"m{n}" for n in range(60))), tenant(*(f"t{n}" for n in range(60))))
    many = every(*(some(*(every(model(f"m{n}"), tenant(f"t{n}-{part}")) for n in range(40))) for part in range(3)))
    book = RuleBook.build([Rule("wide", when=wide), Rule("many", when=some(many, model("only")))])
    assert told(book, "m59", of="t59") == ["wide"]
    assert told(book, "m59", of="x") == []
    assert told(book, "only") == ["many"]
