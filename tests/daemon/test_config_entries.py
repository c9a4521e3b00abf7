"""Single rules and providers, as the admin API takes them, are held to the same rules as those of the file."""

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.codec import pack
from messages.policy import (
    CONDITION_DEPTH_MAX,
    PRIORITIES,
    Action,
    ActionKind,
    Condition,
    ConditionKind,
    Rule,
)
from runtime.config.entries import provider_from, rule_data, rule_from
from runtime.config.kinds import SUPPORTED_STRATEGIES
from runtime.config.problems import ConfigError
from tests.daemon.config_files import MINIMAL, load

NAMES = st.text(string.ascii_letters + string.digits + "-:/ é", min_size=1, max_size=20)
LISTS = st.lists(NAMES, min_size=1, max_size=3, unique=True).map(tuple)
SECONDS = st.integers(0, 86_399).map(float)
NUMBERS = st.one_of(st.integers(1, 10**6).map(float), st.floats(1e-6, 1e6))
NAMING = (ConditionKind.MODEL, ConditionKind.TENANT, ConditionKind.USER, ConditionKind.REGION)
PLAIN = (ConditionKind.ALWAYS, ConditionKind.NEVER, ConditionKind.HAS_TOOLS, ConditionKind.HAS_VISION)

LEAVES = st.one_of(
    st.sampled_from(PLAIN).map(Condition),
    st.builds(lambda kind, names: Condition(kind, names=names), st.sampled_from(NAMING), LISTS),
    st.sampled_from(("gpt-*", "/^a.c/", "mini")).map(lambda text: Condition(ConditionKind.MODEL_PATTERN, names=(text,))),
    st.integers(0, 3).map(lambda number: Condition(ConditionKind.MIN_PRIORITY, number=float(number))),
    st.integers(0, 10**9).map(lambda number: Condition(ConditionKind.TOKEN_COUNT_OVER, number=float(number))),
    st.builds(
        lambda kind, number: Condition(kind, number=number),
        st.sampled_from((ConditionKind.COST_UNDER, ConditionKind.LATENCY_UNDER)),
        NUMBERS,
    ),
    st.builds(
        lambda start_s, end_s, zone: Condition(ConditionKind.TIME_RANGE, start_s=start_s, end_s=end_s, zone=zone),
        SECONDS,
        st.one_of(SECONDS, st.just(86_400.0)),
        st.sampled_from(("UTC", "Europe/Berlin")),
    ),
)


def joined(parts: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    lists = st.lists(parts, max_size=3).map(tuple)
    groups = st.builds(Condition, st.sampled_from((ConditionKind.ALL, ConditionKind.ANY)), lists)
    return st.one_of(groups, parts.map(lambda part: Condition(ConditionKind.NOT, (part,))))


def depth(condition: Condition) -> int:
    return 1 + max((depth(part) for part in condition.parts), default=0)


CONDITIONS = st.recursive(LEAVES, joined, max_leaves=8).filter(lambda condition: depth(condition) <= CONDITION_DEPTH_MAX)
ACTIONS = st.one_of(
    LISTS.map(lambda names: Action(ActionKind.PROVIDERS, names)),
    st.sampled_from(SUPPORTED_STRATEGIES).map(lambda name: Action(ActionKind.STRATEGY, (name,))),
    st.integers(0, 3).map(lambda number: Action(ActionKind.PRIORITY, priority=number)),
    st.builds(lambda kind, name: Action(kind, (name,)), st.sampled_from((ActionKind.REJECT, ActionKind.REDIRECT)), NAMES),
)
RULES = st.builds(
    Rule,
    NAMES,
    st.integers(-1000, 1000),
    st.booleans(),
    CONDITIONS,
    st.lists(ACTIONS, min_size=1, max_size=3).map(tuple),
    st.booleans(),
)


@given(rule=RULES)
def test_A4_D7_a_rule_that_was_shown_can_be_put_back_and_is_the_same(rule: Rule) -> None:
    assert rule_from(rule_data(rule)) == rule


def problems_of(take: Any, data: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        take(data)
    return [str(problem) for problem in caught.value.problems]


def test_A4_every_error_of_a_rule_is_told_with_its_path_in_the_body() -> None:
    body = {
        "nam": "it",
        "priority": True,
        "when": {"all": [{"tenant": "acme"}, {"time_range": {"start": "22:00", "end": "06:00", "zone": "Mars"}}]},
        "then": {"strategy": "magic"},
    }
    assert problems_of(rule_from, body) == [
        "nam: unknown key; did you mean 'name'?",
        "name: is missing",
        "priority: expected a number",
        f"then.strategy: unknown strategy; known are: {', '.join(SUPPORTED_STRATEGIES)}",
        "when.all[1].time_range.zone: is no known time zone; expected an IANA name such as UTC or Europe/Berlin",
    ]


@pytest.mark.parametrize("body", [None, [], "rule", 7, True])
def test_a_body_that_is_no_mapping_is_refused(body: Any) -> None:
    assert problems_of(rule_from, body) == ["expected a mapping"]
    assert problems_of(provider_from, body) == ["expected a mapping"]


def nested(levels: int) -> dict[str, Any]:
    condition: dict[str, Any] = {"always": True}
    for _ in range(levels - 1):
        condition = {"not": condition}
    return condition


def test_conditions_too_deep_are_refused_and_a_body_without_end_before_anything_else() -> None:
    rule = {"name": "it", "then": {"priority": "high"}}
    assert rule_from({**rule, "when": nested(CONDITION_DEPTH_MAX)}).when.kind is ConditionKind.NOT
    assert problems_of(rule_from, {**rule, "when": nested(CONDITION_DEPTH_MAX + 1)}) == [
        f"when{'.not' * CONDITION_DEPTH_MAX}: conditions are nested deeper than {CONDITION_DEPTH_MAX} levels"
    ]
    assert problems_of(rule_from, {**rule, "when": nested(900)}) == ["nested deeper than 32 levels"]
    assert problems_of(provider_from, {"id": "a", "kind": "openai", "headers": nested(900)}) == ["nested deeper than 32 levels"]


def test_A1_a_provider_has_the_same_defaults_as_in_the_file() -> None:
    spec, credential = provider_from({"id": "main", "kind": "openai"})
    from_file = load(MINIMAL)
    assert spec == from_file.snapshot.providers[0]
    assert credential == from_file.credentials["main"]


def test_A1_a_providers_secrets_go_to_its_credential_and_not_into_its_message() -> None:
    spec, credential = provider_from(
        {"id": "a", "kind": "groq", "api_key": "sk-hidden", "headers": {"X-Team": "hidden-too"}, "models": ["m"], "weight": 7}
    )
    assert (spec.id, spec.weight, [model.name for model in spec.models]) == ("a", 7, ["m"])
    assert b"hidden" not in pack(spec)
    assert "hidden" not in repr(credential)
    assert credential.call_headers == (("Authorization", "Bearer sk-hidden"), ("X-Team", "hidden-too"))


def test_A1_every_error_of_a_provider_is_told_with_its_path_in_the_body() -> None:
    body = {
        "id": "A!",
        "kind": "openai_compatible",
        "weight": -1,
        "limits": {"burst": 5},
        "models": ["a", {"name": "a"}],
        "prioriti": 3,
    }
    assert problems_of(provider_from, body) == [
        "base_url: is required for kind 'openai_compatible'",
        "id: must be 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit",
        "limits.burst: needs requests_per_minute, whose bucket it sizes",
        "models[1].name: is already the name of models[0]",
        "prioriti: unknown key; did you mean 'priority'?",
        "weight: must be 0 or more",
    ]


@pytest.mark.parametrize("secret", ["file:/etc/hostname", "${HOME}", "before-${HOME:-x}"])
def test_pain_23_a_body_cannot_read_the_daemons_files_or_variables(secret: str) -> None:
    reason = "is taken literally here: variables and file: work in the configuration file only"
    assert problems_of(provider_from, {"id": "a", "kind": "openai", "api_key": secret}) == [f"api_key: {reason}"]
    assert problems_of(provider_from, {"id": "a", "kind": "openai", "headers": {"X-A": secret}}) == [f"headers.X-A: {reason}"]


@pytest.mark.parametrize(
    "body",
    [
        {"id": "a", "kind": "openai", "api_key": "sk-hidden and more"},
        {"id": "a", "kind": "openai", "api_key": ["sk-hidden"]},
        {"id": "sk-hidden!", "kind": "sk-hidden", "base_url": "https://sk-hidden@host", "weight": "sk-hidden"},
        {"id": "a", "kind": "openai", "headers": {"X-A": "sk-hidden\r\nX: y"}},
        {"id": "a", "kind": "openai", "headers": "sk-hidden", "probe": {"kind": "sk-hidden"}},
    ],
)
def test_pain_23_no_error_of_a_body_repeats_a_secret(body: dict[str, Any]) -> None:
    assert "sk-hidden" not in "\n".join(problems_of(provider_from, body))


def test_the_priorities_are_shown_by_name() -> None:
    rule = rule_from({"name": "it", "when": {"min_priority": 2}, "then": {"priority": 0}})
    assert rule_data(rule)["when"] == {"min_priority": PRIORITIES[2]}
    assert rule_data(rule)["then"] == [{"priority": PRIORITIES[0]}]
