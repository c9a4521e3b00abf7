"""Rules, tenants and pools in words, and as data for ``--json``."""

from collections.abc import Iterable, Iterator
from typing import Any

from messages.control import ConfigSnapshot
from messages.limits import LimitsSpec
from messages.policy import PRIORITIES, Action, ActionKind, Condition, ConditionKind, PoolRule, PoolSpec, Rule, TenantSpec
from runtime.config.build_policy import limits_data, rule_data, time_text

_FLAGS = {
    ConditionKind.ALWAYS: "always",
    ConditionKind.NEVER: "never",
    ConditionKind.HAS_TOOLS: "has tools",
    ConditionKind.HAS_VISION: "has images",
}
_JOINED = {ConditionKind.ALL: (" and ", "always"), ConditionKind.ANY: (" or ", "never")}


def policy_lines(snapshot: ConfigSnapshot) -> Iterator[str]:
    """Plain lines: pools, rules in the order in which they are asked, tenants. Nothing for what there is none of."""
    yield from _section("pools", ((pool.model, pool_text(pool)) for pool in snapshot.pools))
    ordered = sorted(snapshot.rules, key=lambda rule: -rule.priority)
    yield from _section("rules, the first that holds", ((rule.name, rule_text(rule)) for rule in ordered))
    yield from _section("tenants", ((tenant.name, tenant_text(tenant)) for tenant in snapshot.tenants))


def policy_data(snapshot: ConfigSnapshot) -> dict[str, Any]:
    """The same as data, in the words of the file."""
    return {
        "pools": {pool.model: _pool_data(pool) for pool in snapshot.pools},
        "rules": [rule_data(rule) for rule in snapshot.rules],
        "tenants": {tenant.name: _tenant_data(tenant) for tenant in snapshot.tenants},
    }


def condition_text(condition: Condition) -> str:
    """A condition in words: ``tenant is acme and not (region is eu or us)``."""
    kind = condition.kind
    if kind in _FLAGS:
        return _FLAGS[kind]
    if kind in _JOINED:
        word, of_nothing = _JOINED[kind]
        return word.join(_within(part) for part in condition.parts) or of_nothing
    if kind is ConditionKind.NOT:
        return f"not ({condition_text(condition.parts[0])})"
    names, number = " or ".join(condition.names), f"{condition.number:.10g}"
    match kind:
        case ConditionKind.MODEL_PATTERN:
            return f"model fits {names}"
        case ConditionKind.MIN_PRIORITY:
            return f"priority is {PRIORITIES[int(condition.number)]} or higher"
        case ConditionKind.TOKEN_COUNT_OVER:
            return f"prompt is over {number} tokens"
        case ConditionKind.COST_UNDER:
            return f"provider costs under {number} USD per 1000 tokens"
        case ConditionKind.LATENCY_UNDER:
            return f"provider answers in under {number} ms"
        case ConditionKind.TIME_RANGE:
            return f"time is {time_text(condition.start_s)} to {time_text(condition.end_s)} ({condition.zone})"
    return f"{kind.value} is {names}"


def action_text(action: Action) -> str:
    """An action in words: ``only azure-eu, mistral``."""
    names = ", ".join(action.names)
    match action.kind:
        case ActionKind.PROVIDERS:
            return f"only {names}"
        case ActionKind.STRATEGY:
            return f"strategy {names}"
        case ActionKind.PRIORITY:
            return f"priority {PRIORITIES[action.priority]}"
        case ActionKind.REJECT:
            return f"reject: {names}"
    return f"redirect to {names}"


def rule_text(rule: Rule) -> str:
    """A rule in words, without its name."""
    then = ", then ".join(action_text(action) for action in rule.then) or "as if no rule held"
    restricts = any(action.kind is ActionKind.PROVIDERS for action in rule.then)
    fallback = ", no others if these cannot" if restricts and not rule.allow_fallback else ""
    disabled = "" if rule.enabled else "  (disabled)"
    return f"priority {rule.priority}: if {condition_text(rule.when)} → {then}{fallback}{disabled}"


def tenant_text(tenant: TenantSpec) -> str:
    """A tenant in words, without its name."""
    parts = []
    if tenant.allowed_providers is not None:
        parts.append(f"only {', '.join(tenant.allowed_providers)}" if tenant.allowed_providers else "no provider allowed")
    if tenant.preferred_providers:
        parts.append(f"prefers {', '.join(tenant.preferred_providers)}")
    if tenant.max_cost_usd is not None:
        parts.append(f"at most {tenant.max_cost_usd:.10g} USD per request")
    if tenant.strategy:
        parts.append(f"strategy {tenant.strategy}")
    parts += _limits_text(tenant.limits)
    return "; ".join(parts) or "like everybody"


def pool_text(pool: PoolSpec) -> str:
    """A pool in words, without its model."""
    parts = [f"strategy {pool.strategy}"] if pool.strategy else []
    return "; ".join([*parts, *_limits_text(pool.limits), *map(_pool_rule_text, pool.rules)])


def _limits_text(limits: LimitsSpec) -> list[str]:
    parts = [f"{name} {value:.10g}" for name, value in limits_data(limits).items()]
    return [f"limits: {', '.join(parts)}"] if parts else []


def _within(part: Condition) -> str:
    text = condition_text(part)
    return f"({text})" if part.kind in _JOINED and len(part.parts) > 1 else text


def _pool_rule_text(rule: PoolRule) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in rule.labels)
    return f"keys with {labels} → {'denied' if rule.deny else f'redirect to {rule.redirect}'}"


def _pool_data(pool: PoolSpec) -> dict[str, Any]:
    rules = [
        {"labels": dict(rule.labels), **({"deny": True} if rule.deny else {"redirect": rule.redirect})} for rule in pool.rules
    ]
    return {"strategy": pool.strategy or None, "rules": rules, "limits": limits_data(pool.limits)}


def _tenant_data(tenant: TenantSpec) -> dict[str, Any]:
    return {
        "allowed_providers": None if tenant.allowed_providers is None else list(tenant.allowed_providers),
        "preferred_providers": list(tenant.preferred_providers),
        "max_cost_per_request": tenant.max_cost_usd,
        "strategy": tenant.strategy or None,
        "limits": limits_data(tenant.limits),
    }


def _section(title: str, entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    listed = list(entries)
    if not listed:
        return
    width = max(len(name) for name, _ in listed)
    yield from ("", title, *(f"  {name:<{width}}  {text}" for name, text in listed))
