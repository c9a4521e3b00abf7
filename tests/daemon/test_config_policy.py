"""Pools, rules and tenants in the file: what is written arrives, and what cannot be meant is told with its place."""

import json
from pathlib import Path

import pytest

from messages.control import RoutingSpec
from messages.policy import (
    ALWAYS,
    CONDITION_DEPTH_MAX,
    CRITICAL,
    HIGH,
    Action,
    ActionKind,
    Condition,
    ConditionKind,
    PoolRule,
    PoolSpec,
    Rule,
    TenantSpec,
)
from runtime.config.describe import describe, overview
from runtime.config.kinds import SUPPORTED_STRATEGIES
from runtime.config.schema import json_schema
from tests.daemon.config_files import FLEET, load, said
from tests.daemon.gateway import run_pointsman

KNOWN_CONDITIONS = (
    "always, never, all, any, not, model, model_pattern, tenant, user, region, min_priority, has_tools, has_vision, "
    "token_count_over, time_range, cost_under, latency_under"
)
NO_ZONE = "is no known time zone; expected an IANA name such as UTC or Europe/Berlin"
KNOWN_STRATEGIES = ", ".join(SUPPORTED_STRATEGIES)
ONE_KEY = "a condition is a mapping of exactly one key"


def rule_of(text: str) -> Rule:
    (rule,) = load(FLEET + f"rules:\n  - {text}\n").snapshot.rules
    return rule


def when(text: str) -> Condition:
    return rule_of(f"{{name: it, when: {text}, then: {{priority: high}}}}").when


def then(text: str) -> tuple[Action, ...]:
    return rule_of(f"{{name: it, then: {text}}}").then


def faults(more: str) -> list[str]:
    """Every problem as ``line path: message``, the lines counted from the first of ``more``."""
    return [f"{int(line) - FLEET.count(chr(10))} {rest}" for line, rest in (text.split(" ", 1) for text in said(FLEET + more))]


def faults_when(text: str) -> list[str]:
    return faults(f"rules:\n  - name: it\n    then: {{priority: high}}\n    when: {text}\n")


def test_A4_a_rule_that_says_little_has_the_defaults_of_the_contract() -> None:
    assert then("{provider: west}") == (Action(ActionKind.PROVIDERS, ("west",)),)
    rule = rule_of("{name: it, then: {provider: west}}")
    assert (rule.priority, rule.enabled, rule.when, rule.allow_fallback) == (0, True, ALWAYS, True)


def test_A4_D7_the_rule_of_the_contract_arrives_whole() -> None:
    text = (
        "{name: eu-stays-in-eu, priority: 100, enabled: false, when: {all: [{tenant: acme}, {region: eu}]}, "
        "then: [{providers: [west, east]}, {strategy: cost}], allow_fallback: false}"
    )
    acme, eu = Condition(ConditionKind.TENANT, names=("acme",)), Condition(ConditionKind.REGION, names=("eu",))
    chain = (Action(ActionKind.PROVIDERS, ("west", "east")), Action(ActionKind.STRATEGY, ("cost",)))
    assert rule_of(text) == Rule("eu-stays-in-eu", 100, False, Condition(ConditionKind.ALL, (acme, eu)), chain, False)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("{always: true}", ALWAYS),
        ("{never: true}", Condition(ConditionKind.NEVER)),
        ("{all: []}", Condition(ConditionKind.ALL)),
        ("{any: [{always: true}, {never: true}]}", Condition(ConditionKind.ANY, (ALWAYS, Condition(ConditionKind.NEVER)))),
        ("{not: {always: true}}", Condition(ConditionKind.NOT, (ALWAYS,))),
        ("{model: gpt-4o}", Condition(ConditionKind.MODEL, names=("gpt-4o",))),
        ("{model: [gpt-4o, mini]}", Condition(ConditionKind.MODEL, names=("gpt-4o", "mini"))),
        ("{model_pattern: gpt-*}", Condition(ConditionKind.MODEL_PATTERN, names=("gpt-*",))),
        ("{model_pattern: /^gpt/}", Condition(ConditionKind.MODEL_PATTERN, names=("/^gpt/",))),
        ("{tenant: acme}", Condition(ConditionKind.TENANT, names=("acme",))),
        ("{user: [ann, bob]}", Condition(ConditionKind.USER, names=("ann", "bob"))),
        ("{region: [eu, us]}", Condition(ConditionKind.REGION, names=("eu", "us"))),
        ("{min_priority: high}", Condition(ConditionKind.MIN_PRIORITY, number=HIGH)),
        ("{min_priority: 3}", Condition(ConditionKind.MIN_PRIORITY, number=CRITICAL)),
        ("{has_tools: true}", Condition(ConditionKind.HAS_TOOLS)),
        ("{has_vision: true}", Condition(ConditionKind.HAS_VISION)),
        ("{token_count_over: 1000}", Condition(ConditionKind.TOKEN_COUNT_OVER, number=1000)),
        ("{cost_under: 0.005}", Condition(ConditionKind.COST_UNDER, number=0.005)),
        ("{latency_under: 800}", Condition(ConditionKind.LATENCY_UNDER, number=800)),
        ("{time_range: {start: 22:00, end: 06:30:15}}", Condition(ConditionKind.TIME_RANGE, start_s=79_200, end_s=23_415)),
        ("{time_range: {start: '00:00', end: '24:00', zone: Europe/Berlin}}",
         Condition(ConditionKind.TIME_RANGE, start_s=0, end_s=86_400, zone="Europe/Berlin")),
    ],
)  # fmt: skip
def test_A4_D7_every_condition_of_the_contract_arrives(text: str, condition: Condition) -> None:
    assert when(text) == condition


def test_A4_D7_every_kind_of_condition_and_action_can_be_written() -> None:
    definitions = json_schema()["$defs"]
    assert {kind.value for kind in ConditionKind} == set(definitions["ConditionEntry"]["properties"])
    assert {kind.value for kind in ActionKind} | {"provider"} == set(definitions["ActionEntry"]["properties"])


@pytest.mark.parametrize(
    ("text", "actions"),
    [
        ("{providers: [east, west]}", (Action(ActionKind.PROVIDERS, ("east", "west")),)),
        ("[{priority: critical}, {strategy: cost}]",
         (Action(ActionKind.PRIORITY, priority=CRITICAL), Action(ActionKind.STRATEGY, ("cost",)))),
        ("{reject: maintenance_mode}", (Action(ActionKind.REJECT, ("maintenance_mode",)),)),
        ("{redirect: mini}", (Action(ActionKind.REDIRECT, ("mini",)),)),
    ],
)  # fmt: skip
def test_D7_every_action_of_the_contract_arrives(text: str, actions: tuple[Action, ...]) -> None:
    assert then(text) == actions


def test_D2_tenants_arrive_and_absent_providers_mean_all_and_an_empty_list_none() -> None:
    text = """\
tenants:
  acme: {allowed_providers: [west], preferred_providers: [east, west], max_cost_per_request: 0.50, strategy: cost}
  nobody: {allowed_providers: []}
  anybody:
"""
    loaded = load(FLEET + text)
    assert loaded.snapshot.tenants == (
        TenantSpec("acme", ("west",), ("east", "west"), 0.5, "cost"),
        TenantSpec("nobody", ()),
        TenantSpec("anybody"),
    )
    assert "  tenant nobody: no provider is allowed, so all its requests are rejected" in describe(loaded)


def test_B8_pools_arrive_with_their_rules_in_order() -> None:
    text = "pools: {gpt-4o: {strategy: least_latency, rules: [{labels: {b: 2x, a: x}, deny: true}, "
    text += "{labels: {c: x}, redirect: mini}]}}\n"
    rules = (PoolRule((("a", "x"), ("b", "2x")), deny=True), PoolRule((("c", "x"),), redirect="mini"))
    assert load(FLEET + text).snapshot.pools == (PoolSpec("gpt-4o", "least_latency", rules),)


def test_D3_least_latency_compares_the_median_or_the_95th_percentile() -> None:
    assert load(FLEET).snapshot.routing == RoutingSpec(latency_quantile="p50")
    assert load(FLEET + "routing: {least_latency: {quantile: p95}}").snapshot.routing.latency_quantile == "p95"


@pytest.mark.parametrize("name", SUPPORTED_STRATEGIES)
def test_A5_every_strategy_can_be_named_for_all_for_a_pool_for_a_tenant_and_in_a_rule(name: str) -> None:
    text = (
        f"routing: {{strategy: {name}}}\npools: {{mini: {{strategy: {name}}}}}\ntenants: {{acme: {{strategy: {name}}}}}\n"
        f"rules: [{{name: it, then: {{strategy: {name}}}}}]\n"
    )
    snapshot = load(FLEET + text).snapshot
    assert (snapshot.routing.strategy, snapshot.pools[0].strategy, snapshot.tenants[0].strategy) == (name, name, name)
    assert snapshot.rules[0].then == (Action(ActionKind.STRATEGY, (name,)),)


def test_a_strategy_of_a_plugin_can_be_named_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.plugins.all_strategies", lambda: {"adaptive": None, "house": None})
    assert load(FLEET + "routing: {strategy: house}").snapshot.routing.strategy == "house"
    assert faults("routing: {strategy: cost}") == ["1 routing.strategy: unknown strategy; known are: adaptive, house"]
    assert json_schema()["$defs"]["Routing"]["properties"]["strategy"]["enum"] == ["adaptive", "house"]


MANY_THINGS_WRONG = """\
rules:
  - name: one
    when: {model: [gpt-4o, four]}
    then:
      - provider: nobody
      - providers: [west, b]
      - strategy: magic
      - foo: 1
  - name: one
    when:
      all:
        - model: four
        - time_range:
            start: 22:00
            end: 6:00
            zone: Mars/Base
    then: {redirect: gpt-4o}
  - name: two
    when: {model: four}
    then:
      redirect: gpt-4o
  - {name: three, then: []}
  - {then: {provider: c}}
tenants:
  acme:
    allowed_providers: [west, z]
    preferred_providers: [y]
    strategy: best
    max_cost_per_request: 0
pools:
  gpt-4o:
    rules:
      - {labels: {}, deny: true}
      - {labels: {k: v}, redirect: four}
      - {labels: {k: v}, redirect: nothing}
  mini: {}
aliases: {four: gpt-4o}
"""


def test_A4_D7_D2_every_error_of_policy_is_told_at_once_with_its_path_and_line() -> None:
    assert faults(MANY_THINGS_WRONG) == [
        "5 rules[0].then[0].provider: there is no provider 'nobody'",
        "6 rules[0].then[1].providers: there is no provider 'b'",
        f"7 rules[0].then[2].strategy: unknown strategy; known are: {KNOWN_STRATEGIES}",
        "8 rules[0].then[3].foo: unknown action; known are: provider, providers, strategy, priority, reject, redirect",
        "9 rules[1].name: is already the name of rules[0]",
        "15 rules[1].when.all[1].time_range.end: expected a time of day such as 22:00 or 06:30:00",
        "16 rules[1].when.all[1].time_range.zone: is no known time zone; expected an IANA name such as UTC or Europe/Berlin",
        "21 rules[2].then.redirect: redirects 'gpt-4o' to itself",
        "23 rules[4].name: is missing",
        "23 rules[4].then.provider: there is no provider 'c'",
        "26 tenants.acme.allowed_providers: there is no provider 'z'",
        "27 tenants.acme.preferred_providers: there is no provider 'y'",
        f"28 tenants.acme.strategy: unknown strategy; known are: {KNOWN_STRATEGIES}",
        "29 tenants.acme.max_cost_per_request: must be more than 0",
        "33 pools.gpt-4o.rules[0]: needs one label at least",
        "34 pools.gpt-4o.rules[1].redirect: redirects 'gpt-4o' to itself",
        "35 pools.gpt-4o.rules[2].redirect: no provider serves a model 'nothing'",
        "36 pools.mini: says nothing; give it a strategy, rules or limits, or leave it out",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{modle: x}", f"when.modle: unknown condition; known are: {KNOWN_CONDITIONS}"),
        ("{model: x, tenant: y}", f"when: has 2 keys; {ONE_KEY}"),
        ("{}", f"when: has no key; {ONE_KEY}"),
        ("", f"when: expected a mapping; {ONE_KEY}"),
        ("always", f"when: expected a mapping; {ONE_KEY}"),
        ("{all: [{any: [{not: {}}]}]}", f"when.all[0].any[0].not: has no key; {ONE_KEY}"),
        ("{all: {model: x}}", "when.all: expected a list"),
        ("{any: }", "when.any: must not be empty"),
        ("{always: false}", "when.always: can only be true; use the other of always and never"),
        ("{has_tools: false}", "when.has_tools: can only be true; for the opposite use not: {...}"),
        ("{has_vision: false}", "when.has_vision: can only be true; for the opposite use not: {...}"),
        ("{model: []}", "when.model: must name one at least"),
        ("{model: ''}", "when.model: must not be empty"),
        ('{user: "a\\nb"}', "when.user: must not contain a line break or another control character"),
        ("{user: 7}", "when.user: expected a name or a list of names"),
        ("{region: [eu, '']}", "when.region[1]: must not be empty"),
        ("{model_pattern: /(/}", "when.model_pattern: what stands between the slashes is no regular expression"),
        ("{min_priority: urgent}", "when.min_priority: expected low, normal, high or critical, or 0 to 3"),
        ("{min_priority: 4}", "when.min_priority: expected low, normal, high or critical, or 0 to 3"),
        ("{token_count_over: many}", "when.token_count_over: expected a whole number"),
        ("{token_count_over: -1}", "when.token_count_over: must be 0 or more"),
        ("{cost_under: 0}", "when.cost_under: must be more than 0"),
        ("{latency_under: .inf}", "when.latency_under: expected a finite number"),
        ("{time_range: {start: 24:00, end: 06:00}}",
         "when.time_range.start: 24:00 can only be an end; a range that starts at midnight starts at 00:00"),
        ("{time_range: {start: 25:00, end: 06:00}}",
         "when.time_range.start: expected a time of day such as 22:00 or 06:30:00"),
        ("{time_range: {start: 22:00}}", "when.time_range.end: is missing"),
        ("{time_range: {start: 22:00, end: 06:00, zone: ../../etc/passwd}}",
         "when.time_range.zone: is no known time zone; expected an IANA name such as UTC or Europe/Berlin"),
        ("{time_range: {start: 22:00, end: 06:00, zon: UTC}}", "when.time_range.zon: unknown key; did you mean 'zone'?"),
    ],
)  # fmt: skip
def test_A4_D7_a_condition_that_cannot_be_meant_is_refused_where_it_stands(text: str, fault: str) -> None:
    assert faults_when(text) == [f"4 rules[0].{fault}"]


def test_a_regular_expression_that_could_take_too_long_is_refused() -> None:
    (fault,) = faults_when("{model_pattern: '/(a+)+$/'}")
    assert fault.startswith("4 rules[0].when.model_pattern: the regular expression could take too long")


def test_conditions_may_be_nested_to_a_depth_that_can_be_read_and_no_deeper() -> None:
    deep = "{not: " * (CONDITION_DEPTH_MAX - 1) + "{always: true}" + "}" * (CONDITION_DEPTH_MAX - 1)
    assert when(deep).kind is ConditionKind.NOT
    place = ".not" * CONDITION_DEPTH_MAX
    assert faults_when(f"{{not: {deep}}}") == [
        f"4 rules[0].when{place}: conditions are nested deeper than {CONDITION_DEPTH_MAX} levels"
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "then: expected an action or a list of actions"),
        ("{}", "then: has no key; an action is a mapping of exactly one key"),
        ("{provider: west, strategy: cost}", "then: has 2 keys; an action is a mapping of exactly one key"),
        ("{providers: []}", "then.providers: must name one at least"),
        ("{providers: [west, west]}", "then.providers: provider 'west' is named twice"),
        ("{reject: ''}", "then.reject: must not be empty"),
        ('{reject: "a\\nb"}', "then.reject: must not contain a line break or another control character"),
        ("[{reject: no}, {strategy: cost}]", "then[0].reject: what is rejected goes nowhere: reject must be the only action"),
        ("{redirect: nothing}", "then.redirect: no provider serves a model 'nothing'"),
        ("{priority: urgent}", "then.priority: expected low, normal, high or critical, or 0 to 3"),
    ],
)
def test_D7_an_action_that_cannot_be_meant_is_refused_where_it_stands(text: str, fault: str) -> None:
    assert faults(f"rules:\n  - name: it\n    then: {text}\n") == [f"3 rules[0].{fault}"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("nowhere: {strategy: cost}", "pools.nowhere: no provider serves a model of this name"),
        ("mini: ", "pools.mini: says nothing; give it a strategy, rules or limits, or leave it out"),
        ("mini: {rules: []}", "pools.mini: says nothing; give it a strategy, rules or limits, or leave it out"),
        ("mini: {rules: [{labels: {a: b}}]}", "pools.mini.rules[0]: needs one of deny: true and redirect, and not both"),
        ("mini: {rules: [{labels: {a: b}, deny: true, redirect: gpt-4o}]}",
         "pools.mini.rules[0]: needs one of deny: true and redirect, and not both"),
        ("mini: {rules: [{labels: {a: b}, deny: false}]}",
         "pools.mini.rules[0].deny: can only be true; a caller whom no rule denies is allowed"),
        ("mini: {rules: [{deny: true}]}", "pools.mini.rules[0].labels: is missing"),
        ("mini: {rules: [{labels: {a: 1}, deny: true}]}",
         "pools.mini.rules[0].labels.a: expected text (a number or true/false needs quotes to be text)"),
        ("mini: {rules: [{labels: {a: b}, redirect: mini}]}", "pools.mini.rules[0].redirect: redirects 'mini' to itself"),
    ],
)  # fmt: skip
def test_B8_a_pool_that_cannot_be_meant_is_refused_where_it_stands(text: str, fault: str) -> None:
    assert faults(f"pools:\n  {text}\n") == [f"2 {fault}"]


def test_where_a_provider_takes_any_name_any_model_may_have_a_pool_or_be_redirected_to() -> None:
    text = "providers: [{id: any, kind: vllm}]\npools: {whatever: {strategy: cost}}\n"
    assert load(text + "rules: [{name: it, then: {redirect: something}}]").snapshot.pools[0].model == "whatever"


def test_an_error_bears_its_position_in_the_file_though_entries_before_it_are_broken() -> None:
    text = "rules:\n  - 5\n  - {name: a, then: {provider: west}}\n  - {name: a, then: {provider: nobody}}\n"
    assert faults(text) == [
        "2 rules[0]: expected a mapping",
        "4 rules[2].name: is already the name of rules[1]",
        "4 rules[2].then.provider: there is no provider 'nobody'",
    ]


def test_what_came_from_the_environment_is_not_repeated_by_an_error_of_policy() -> None:
    text = FLEET + "rules:\n  - {name: it, then: {provider: '${WRONG}'}}\n"
    assert [line for line in said(text, {"WRONG": "sk-verysecret"}) if "sk-verysecret" in line] == []


SHOWN = """\
pools:
  gpt-4o: {strategy: least_latency}
  mini: {rules: [{labels: {purpose: batch}, deny: true}, {labels: {tier: free, x: y}, redirect: gpt-4o}]}
rules:
  - {name: late, when: {any: [{has_tools: true}, {not: {min_priority: high}}]}, then: {reject: not now}}
  - name: first
    priority: 5
    enabled: false
    when:
      all:
        - {tenant: [acme, labs]}
        - {any: [{model_pattern: gpt-*}, {token_count_over: 1000000}]}
        - {time_range: {start: "22:00", end: "06:00", zone: Europe/Berlin}}
        - {cost_under: 0.005}
        - {latency_under: 800}
    then: [{providers: [west, east]}, {strategy: cost}, {priority: low}]
    allow_fallback: false
tenants:
  acme: {allowed_providers: [west], preferred_providers: [west], max_cost_per_request: 0.5, strategy: cost}
  labs: {}
"""


def test_A4_D2_check_prints_pools_rules_and_tenants_in_words() -> None:
    lines = describe(load(FLEET + SHOWN))
    start = lines.index("pools")
    assert lines[start : lines.index("limits") - 1] == [
        "pools",
        "  gpt-4o  strategy least_latency",
        "  mini    keys with purpose=batch → denied; keys with tier=free, x=y → redirect to gpt-4o",
        "",
        "rules, the first that holds",
        "  first  priority 5: if tenant is acme or labs and (model fits gpt-* or prompt is over 1000000 tokens) and "
        "time is 22:00 to 06:00 (Europe/Berlin) and provider costs under 0.005 USD per 1000 tokens and "
        "provider answers in under 800 ms → only west, east, then strategy cost, then priority low, "
        "no others if these cannot  (disabled)",
        "  late   priority 0: if has tools or not (priority is high or higher) → reject: not now",
        "",
        "tenants",
        "  acme  only west; prefers west; at most 0.5 USD per request; strategy cost",
        "  labs  like everybody",
    ]


def test_what_check_prints_of_policy_is_there_as_data_in_the_words_of_the_file() -> None:
    data = json.loads(json.dumps(overview(load(FLEET + SHOWN))))
    assert [rule["name"] for rule in data["rules"]] == ["late", "first"]
    assert data["rules"][0]["when"] == {"any": [{"has_tools": True}, {"not": {"min_priority": "high"}}]}
    assert data["pools"]["mini"]["rules"][0] == {"labels": {"purpose": "batch"}, "deny": True}
    assert data["tenants"]["acme"]["max_cost_per_request"] == 0.5


IMPOSSIBLE = """\
providers:
  - {id: west, kind: openai, models: [gpt-4o, mini], weight: -1}
  - {id: west, kind: openai, models: [gpt-4o]}
aliases: {a: b, b: a}
rules:
  - name: it
    when: {all: [{time_range: {start: "22:00", end: "06:00", zone: Mars/Base}}, {has_tools: true}]}
    then: [{provider: nobody}, {strategy: magic}, {redirect: mini}]
pools:
  gpt-4o: {}
  mini: {rules: [{labels: {tier: free}, redirect: mini}]}
"""


def test_every_impossible_configuration_is_refused_by_the_command_with_path_line_and_reason(tmp_path: Path) -> None:
    file = tmp_path / "impossible.yaml"
    file.write_text(IMPOSSIBLE, encoding="utf-8")
    ended = run_pointsman("check", "-c", str(file))
    assert ended.returncode == 1
    assert [line.removeprefix(f"{file}: ") for line in ended.stderr.splitlines() if line.startswith(str(file))] == [
        "line 2: providers[0].weight: must be 0 or more",
        "line 3: providers[1].id: is already the id of providers[0]",
        "line 4: aliases.a: leads back to itself",
        f"line 7: rules[0].when.all[0].time_range.zone: {NO_ZONE}",
        "line 8: rules[0].then[0].provider: there is no provider 'nobody'",
        f"line 8: rules[0].then[1].strategy: unknown strategy; known are: {KNOWN_STRATEGIES}",
        "line 10: pools.gpt-4o: says nothing; give it a strategy, rules or limits, or leave it out",
        "line 11: pools.mini.rules[0].redirect: redirects 'mini' to itself",
    ]
