"""Rules, tenants and pools: from valid entries to messages, and a rule back to what one would write."""

from typing import Any

from messages.limits import NO_LIMITS, LimitsSpec
from messages.policy import (
    ALWAYS,
    PRIORITIES,
    Action,
    ActionKind,
    Condition,
    ConditionKind,
    PoolRule,
    PoolSpec,
    Rule,
    TenantSpec,
)
from runtime.config.schema_policy import (
    DAY_S,
    ActionEntry,
    ConditionEntry,
    PoolEntry,
    PoolRuleEntry,
    QuotaLimits,
    RuleEntry,
    TenantEntry,
    TimeRange,
    time_of_day_s,
)

_JOINED = (ConditionKind.ALL, ConditionKind.ANY)
_NAMING = (ConditionKind.MODEL, ConditionKind.TENANT, ConditionKind.USER, ConditionKind.REGION)
_NUMBERED = (ConditionKind.TOKEN_COUNT_OVER, ConditionKind.COST_UNDER, ConditionKind.LATENCY_UNDER)


def rule_of(entry: RuleEntry) -> Rule:
    """The rule that ``entry`` describes."""
    then = tuple(action_of(action) for action in entry.then)
    return Rule(entry.name, entry.priority, entry.enabled, condition_of(entry.when), then, entry.allow_fallback)


def tenant_spec(name: str, entry: TenantEntry) -> TenantSpec:
    """The tenant that ``entry`` describes."""
    allowed = None if entry.allowed_providers is None else tuple(entry.allowed_providers)
    ceiling_usd, strategy = entry.max_cost_per_request, entry.strategy or ""
    return TenantSpec(name, allowed, tuple(entry.preferred_providers), ceiling_usd, strategy, limits_spec(entry.limits))


def pool_spec(model: str, entry: PoolEntry) -> PoolSpec:
    """The pool that ``entry`` describes."""
    rules = tuple(pool_rule(rule) for rule in entry.rules)
    return PoolSpec(model, entry.strategy or "", rules, limits_spec(entry.limits))


def limits_spec(entry: QuotaLimits | None) -> LimitsSpec:
    """The limits that ``entry`` describes; None: there are none."""
    if entry is None:
        return NO_LIMITS
    return LimitsSpec(entry.requests_per_minute, entry.tokens_per_minute, entry.max_concurrency, entry.burst)


def limits_data(limits: LimitsSpec) -> dict[str, float]:
    """``limits`` as one would write them in the file: only what is limited."""
    parts = {
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "max_concurrency": limits.max_concurrency,
        "burst": limits.burst,
    }
    return {name: value for name, value in parts.items() if value is not None}


def pool_rule(entry: PoolRuleEntry) -> PoolRule:
    """The rule of a pool that ``entry`` describes."""
    return PoolRule(tuple(sorted(entry.labels.items())), entry.deny is True, entry.redirect or "")


def rule_data(rule: Rule) -> dict[str, Any]:
    """``rule`` as one would write it in the file, complete: what ``rule_from`` takes and makes the same rule of."""
    return {
        "name": rule.name,
        "priority": rule.priority,
        "enabled": rule.enabled,
        "when": condition_data(rule.when),
        "then": [_action_data(action) for action in rule.then],
        "allow_fallback": rule.allow_fallback,
    }


def condition_data(condition: Condition) -> dict[str, Any]:
    """``condition`` as one would write it in the file."""
    kind = condition.kind
    value: Any = True
    if kind in _JOINED:
        value = [condition_data(part) for part in condition.parts]
    elif kind is ConditionKind.NOT:
        value = condition_data(condition.parts[0])
    elif kind in _NAMING:
        value = list(condition.names)
    elif kind is ConditionKind.MODEL_PATTERN:
        value = condition.names[0]
    elif kind is ConditionKind.MIN_PRIORITY:
        value = PRIORITIES[int(condition.number)]
    elif kind in _NUMBERED:
        value = _plain_number(condition.number)
    elif kind is ConditionKind.TIME_RANGE:
        value = {"start": time_text(condition.start_s), "end": time_text(condition.end_s), "zone": condition.zone}
    return {kind.value: value}


def time_text(seconds: float) -> str:
    """A time of day as people write it, from seconds since midnight."""
    minutes, rest = divmod(int(seconds), 60)
    text = f"{minutes // 60:02}:{minutes % 60:02}"
    return f"{text}:{rest:02}" if rest else text


def condition_of(entry: ConditionEntry) -> Condition:
    """The condition that ``entry`` describes."""
    name = entry.key
    kind, value = ConditionKind(name.rstrip("_")), getattr(entry, name)
    if kind is ConditionKind.ALWAYS:
        return ALWAYS
    if kind in _JOINED:
        return Condition(kind, parts=tuple(condition_of(part) for part in value))
    if kind is ConditionKind.NOT:
        return Condition(kind, parts=(condition_of(value),))
    if kind in _NAMING:
        return Condition(kind, names=tuple(dict.fromkeys(value)))
    if kind is ConditionKind.MODEL_PATTERN:
        return Condition(kind, names=(value,))
    if kind is ConditionKind.TIME_RANGE:
        return _time_range(value)
    # Of a flag, true, nothing is left to say.
    return Condition(kind) if isinstance(value, bool) else Condition(kind, number=float(value))


def _time_range(entry: TimeRange) -> Condition:
    start_s, end_s = time_of_day_s(entry.start), time_of_day_s(entry.end)
    assert start_s < DAY_S, "a range that starts at the day's end was refused"
    return Condition(ConditionKind.TIME_RANGE, start_s=float(start_s), end_s=float(end_s), zone=entry.zone)


def action_of(entry: ActionEntry) -> Action:
    """The action that ``entry`` describes."""
    name = entry.key
    value = getattr(entry, name)
    if name == "provider":
        return Action(ActionKind.PROVIDERS, (value,))
    if name == "providers":
        return Action(ActionKind.PROVIDERS, tuple(value))
    if name == "priority":
        return Action(ActionKind.PRIORITY, priority=value)
    return Action(ActionKind(name), (value,))


def _action_data(action: Action) -> dict[str, Any]:
    if action.kind is ActionKind.PROVIDERS:
        return {"providers": list(action.names)}
    if action.kind is ActionKind.PRIORITY:
        return {"priority": PRIORITIES[action.priority]}
    return {action.kind.value: action.names[0]}


def _plain_number(number: float) -> float | int:
    return int(number) if number == int(number) else number
