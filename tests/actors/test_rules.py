"""What rules say: conditions one by one, the laws of unknown, and the price that is really looked at."""

from hypothesis import given
from hypothesis import strategies as st

from actors.router.rules.compiled import compile_rule, compiled
from actors.router.rules.facts import Facts, Terms, cost_per_1k
from actors.router.rules.labels import first_match, matches
from messages.policy import (
    ALWAYS,
    CRITICAL,
    HIGH,
    LOW,
    NORMAL,
    Action,
    ActionKind,
    Condition,
    ConditionKind,
    PoolRule,
    Rule,
)
from messages.routing import Hints, RequestProfile

NEVER = Condition(ConditionKind.NEVER)
CHEAP = Condition(ConditionKind.COST_UNDER, number=0.01)
QUICK = Condition(ConditionKind.LATENCY_UNDER, number=200.0)
VERDICTS = {True: ALWAYS, False: NEVER, None: QUICK}


def facts(
    model: str = "gpt-4o",
    *,
    public: str = "",
    tenant: str = "",
    user: str = "",
    region: tuple[str, ...] = (),
    needs: tuple[str, ...] = ("chat",),
    tokens: int = 0,
    priority: int = NORMAL,
) -> Facts:
    profile = RequestProfile(
        model=model, needs=needs, tenant=tenant, user=user, prompt_tokens=tokens, hints=Hints(regions=region, priority=priority)
    )
    return Facts(profile, public or model, 0.0, priority)


def says(condition: Condition, of: Facts, terms: Terms | None = None) -> bool | None:
    return compile_rule(Rule("r", when=condition)).verdict(of, terms)


def listed(kind: ConditionKind, *names: str) -> Condition:
    return Condition(kind, names=names)


def every(*parts: Condition) -> Condition:
    return Condition(ConditionKind.ALL, parts=parts)


def some(*parts: Condition) -> Condition:
    return Condition(ConditionKind.ANY, parts=parts)


def negated(part: Condition) -> Condition:
    return Condition(ConditionKind.NOT, parts=(part,))


def test_A4_always_holds_and_never_does_not() -> None:
    assert says(ALWAYS, facts()) is True
    assert says(NEVER, facts()) is False


def test_A4_all_of_nothing_holds_and_any_of_nothing_does_not() -> None:
    assert says(every(), facts()) is True
    assert says(some(), facts()) is False


def test_D7_model_is_the_name_as_written_or_the_public_one() -> None:
    either = listed(ConditionKind.MODEL, "gpt4", "o1")
    assert says(either, facts("gpt4", public="gpt-4o")) is True
    assert says(either, facts("claude", public="o1")) is True
    assert says(either, facts("gpt-4o")) is False


def test_A4_a_pattern_is_a_glob_for_the_whole_name_a_searched_expression_or_a_substring() -> None:
    request = facts("latest", public="claude-3-haiku")
    for pattern in ("claude-*", "*haiku", "claude-?-haiku", "claude-[0-9]*", "/^claude/", "/[0-9]-h/", "3-hai", "late"):
        assert says(listed(ConditionKind.MODEL_PATTERN, pattern), request) is True, pattern
    for pattern in (
        "laude-*",
        "*haik",
        "claude-?haiku",
        "claude-[!0-9]*",
        "/^haiku/",
        "/[0-9]{2}/",
        "4-hai",
        "Claude-*",
        "HAIKU",
    ):
        assert says(listed(ConditionKind.MODEL_PATTERN, pattern), request) is False, pattern


def test_D7_tenant_and_region_are_looked_at() -> None:
    assert says(listed(ConditionKind.TENANT, "acme", "zeta"), facts(tenant="acme")) is True
    assert says(listed(ConditionKind.TENANT, "acme"), facts(tenant="")) is False
    assert says(listed(ConditionKind.REGION, "eu", "ch"), facts(region=("ch",))) is True
    assert says(listed(ConditionKind.REGION, "eu"), facts(region=("us",))) is False
    assert says(listed(ConditionKind.REGION, "eu"), facts(region=("us", "eu"))) is True
    assert says(listed(ConditionKind.REGION, "eu"), facts()) is False


def test_A4_user_tools_vision_and_token_count_are_looked_at() -> None:
    assert says(listed(ConditionKind.USER, "ann"), facts(user="ann")) is True
    assert says(listed(ConditionKind.USER, "ann"), facts(user="bob")) is False
    for kind, need in ((ConditionKind.HAS_TOOLS, "tools"), (ConditionKind.HAS_VISION, "vision")):
        assert says(Condition(kind), facts(needs=("chat", need))) is True
        assert says(Condition(kind), facts()) is False
    over = Condition(ConditionKind.TOKEN_COUNT_OVER, number=100)
    assert says(over, facts(tokens=101)) is True
    assert says(over, facts(tokens=100)) is False


def test_D7_a_minimum_priority_holds_from_there_upwards() -> None:
    minimum = Condition(ConditionKind.MIN_PRIORITY, number=HIGH)
    assert [says(minimum, facts(priority=level)) for level in (LOW, NORMAL, HIGH, CRITICAL)] == [False, False, True, True]


def test_trap_cost_under_looks_at_the_price() -> None:
    assert says(CHEAP, facts(), Terms(0.009, None, False)) is True
    assert says(CHEAP, facts(), Terms(0.01, None, False)) is False
    assert says(CHEAP, facts(), Terms(None, None, False)) is False, "an unknown price is under no ceiling"
    assert says(CHEAP, facts()) is None, "without a candidate there is no price"


def test_trap_latency_under_looks_at_the_average() -> None:
    assert says(QUICK, facts(), Terms(None, 0.199, True)) is True
    assert says(QUICK, facts(), Terms(None, 0.2, True)) is False
    assert says(QUICK, facts(), Terms(None, None, True)) is True, "without samples it would never be found"
    assert says(QUICK, facts(), Terms(None, None, False)) is None, "there is no bid yet"
    assert says(QUICK, facts()) is None


def test_A4_a_ceiling_negated_is_a_floor_and_stays_unknown_while_it_is() -> None:
    assert says(negated(CHEAP), facts(), Terms(0.5, None, False)) is True
    assert says(negated(CHEAP), facts(), Terms(0.001, None, False)) is False
    assert says(negated(CHEAP), facts()) is None


def test_A4_a_rule_knows_whether_it_looks_at_candidates() -> None:
    assert not compile_rule(Rule("r", when=every(listed(ConditionKind.MODEL, "a"), negated(NEVER)))).is_selective
    assert compile_rule(Rule("r", when=every(ALWAYS, some(negated(CHEAP))))).is_selective
    assert compile_rule(Rule("r", when=QUICK)).is_selective


def test_A4_a_rule_keeps_its_actions_and_its_word_on_fallback() -> None:
    rule = Rule("r", then=(Action(ActionKind.PROVIDERS, ("a",)), Action(ActionKind.STRATEGY, ("cost",))), allow_fallback=False)
    assert compile_rule(rule).rule is rule


def test_A4_the_price_per_1000_tokens_is_the_mean_of_input_and_output() -> None:
    assert cost_per_1k(2.0, 6.0, "chat") == 0.004
    assert cost_per_1k(2.0, 6.0, "completions") == 0.004
    assert cost_per_1k(2.0, None, "embeddings") == 0.002
    assert cost_per_1k(2.0, None, "chat") is None
    assert cost_per_1k(None, 6.0, "chat") is None
    assert cost_per_1k(None, None, "embeddings") is None
    assert cost_per_1k(0.0, 0.0, "chat") == 0.0


verdicts = st.sampled_from([True, False, None])


@given(st.lists(verdicts, max_size=6))
def test_all_is_the_least_and_any_the_greatest_with_unknown_between(given_verdicts: list[bool | None]) -> None:
    order = {False: 0, None: 1, True: 2}
    parts = [VERDICTS[verdict] for verdict in given_verdicts]
    assert says(every(*parts), facts()) is min([*given_verdicts, True], key=order.__getitem__)
    assert says(some(*parts), facts()) is max([*given_verdicts, False], key=order.__getitem__)


@given(st.lists(verdicts, max_size=4))
def test_not_turns_all_into_any_and_twice_is_once(given_verdicts: list[bool | None]) -> None:
    parts = [VERDICTS[verdict] for verdict in given_verdicts]
    opposite = [negated(part) for part in parts]
    assert says(negated(every(*parts)), facts()) is says(some(*opposite), facts())
    assert says(negated(some(*parts)), facts()) is says(every(*opposite), facts())
    assert says(negated(negated(every(*parts))), facts()) is says(every(*parts), facts())


trees = st.recursive(
    st.sampled_from([ALWAYS, NEVER, CHEAP, QUICK]),
    lambda parts: (
        st.lists(parts, max_size=3).map(lambda found: every(*found))
        | st.lists(parts, max_size=3).map(lambda found: some(*found))
        | parts.map(negated)
    ),
    max_leaves=12,
)
costs = st.sampled_from([None, 0.001, 0.5])
latencies = st.sampled_from([None, 0.1, 3.0])


@given(trees, costs, latencies)
def test_what_is_said_without_a_candidate_or_its_bid_is_never_taken_back(
    tree: Condition, cost: float | None, latency: float | None
) -> None:
    check = compiled(tree)
    early, later, last = (
        check(facts(), None),
        check(facts(), Terms(cost, None, False)),
        check(facts(), Terms(cost, latency, True)),
    )
    assert early is None or early is later
    assert later is None or later is last
    assert last is not None, "with a bid nothing is unknown"


def test_B8_a_caller_needs_all_labels_and_the_first_rule_that_matches_counts() -> None:
    free_batch = PoolRule((("purpose", "batch"), ("tier", "free")), deny=True)
    free = PoolRule((("tier", "free"),), redirect="gpt-4o-mini")
    rules = (free_batch, free)
    assert first_match(rules, (("purpose", "batch"), ("team", "x"), ("tier", "free"))) is free_batch
    assert first_match(rules, (("purpose", "chat"), ("tier", "free"))) is free
    assert first_match(rules, (("purpose", "batch"),)) is None
    assert first_match(rules, ()) is None


def test_B8_a_rule_without_labels_is_for_everybody() -> None:
    assert matches(PoolRule((), deny=True), ())
    assert matches(PoolRule((), deny=True), (("tier", "free"),))
