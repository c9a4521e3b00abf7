"""Where rules, tenants and pools contradict the rest of the file. Beside the validation of each entry, as in ``checks``.

Whatever is invalid by itself is passed over here: the validation names what is wrong with it. A harmless stand-in holds its
place, so that positions stay those of the file.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from actors.consistency import policy_faults
from actors.naming import Server
from messages.policy import (
    ALWAYS,
    CONDITION_DEPTH_MAX,
    Action,
    ActionKind,
    Condition,
    PoolRule,
    PoolSpec,
    Rule,
    TenantSpec,
)
from runtime.config.build_policy import action_of, chain_of, condition_of, pool_rule, rule_of
from runtime.config.kinds import BUILT_IN_ALIASES
from runtime.config.problems import Path
from runtime.config.schema_chain import PoolFailover
from runtime.config.schema_policy import ActionEntry, ConditionEntry, PoolRuleEntry, RuleEntry, too_deep
from runtime.config.strategies import ANY_STRATEGY

Finding = tuple[Path, str]
E = TypeVar("E", bound=BaseModel)

TOO_DEEP = f"conditions are nested deeper than {CONDITION_DEPTH_MAX} levels"

_NO_ACTION = Action(ActionKind.PRIORITY)
_NO_POOL_RULE = PoolRule((("", ""),), deny=True)


class _Anything:
    """Contains whatever is asked for: the validation has looked at the names of strategies."""

    def __contains__(self, name: object) -> bool:
        return True


def policy_findings(data: Any) -> list[Finding]:
    """Everything in the rules, tenants and pools of the whole file's ``data`` that cannot be meant, as path and message."""
    file = _mapping(data)
    raw_rules = _list(file.get("rules"))
    providers = [_mapping(entry) for entry in _list(file.get("providers"))]
    raw_pools = _mapping(file.get("pools"))
    ids = [provider.get("id") for provider in providers]
    # That there is no such provider is told by ``checks``.
    default = file.get("default_provider")
    aliases = {name: target for name, target in _mapping(file.get("aliases")).items() if isinstance(target, str)}
    faults = policy_faults(
        servers=[_server(place, provider) for place, provider in enumerate(providers)],
        strategies=_Anything(),
        aliases={**BUILT_IN_ALIASES, **aliases},
        rules=[_rule(index, _mapping(raw)) for index, raw in enumerate(raw_rules)],
        tenants=[_tenant(name, _mapping(raw)) for name, raw in _mapping(file.get("tenants")).items()],
        pools=[_pool(model, _mapping(raw)) for model, raw in raw_pools.items()],
        default_provider=default if default in ids else None,
        strategy="",
    )
    # Circles of aliases are told by ``checks``.
    return [*_depths(raw_rules)] + [(fault.path, fault.reason) for fault in faults if fault.path[0] != "aliases"]


def _depths(rules: list[Any]) -> Iterator[Finding]:
    for index, rule in enumerate(rules):
        yield from ((("rules", index, "when", *path), TOO_DEEP) for path in too_deep(_mapping(rule).get("when")))


def _server(place: int, provider: Mapping[str, Any]) -> Server:
    name, models = provider.get("id"), _list(provider.get("models"))
    listed = frozenset(entry if isinstance(entry, str) else str(_mapping(entry).get("name")) for entry in models)
    # One whose id is not valid serves its models nevertheless.
    return Server(name if isinstance(name, str) else f"\0{place}", str(provider.get("kind")), listed, not models)


def _rule(index: int, raw: Mapping[str, Any]) -> Rule:
    if not any(True for _ in too_deep(raw.get("when"))):
        entry = _parsed(RuleEntry, raw)
        if entry is not None:
            return rule_of(entry)
    name, then = raw.get("name"), raw.get("then")
    actions = then if isinstance(then, list) else [then]
    # What is not valid leads nowhere.
    return Rule(
        name=name if isinstance(name, str) else f"\0{index}",
        enabled=False,
        when=_condition(raw.get("when")),
        # None at all is for the validation to tell.
        then=tuple(_action(action) for action in actions) or (_NO_ACTION,),
    )


def _condition(raw: Any) -> Condition:
    if any(True for _ in too_deep(raw)):
        return ALWAYS
    entry = _parsed(ConditionEntry, raw)
    return condition_of(entry) if entry else ALWAYS


def _action(raw: Any) -> Action:
    entry = _parsed(ActionEntry, raw)
    return action_of(entry) if entry else _NO_ACTION


def _tenant(name: str, raw: Mapping[str, Any]) -> TenantSpec:
    return TenantSpec(name, _names(raw.get("allowed_providers")), _names(raw.get("preferred_providers")))


def _names(raw: Any) -> tuple[str, ...]:
    return tuple(name for name in _list(raw) if isinstance(name, str) and name)


def _pool(model: str, raw: Mapping[str, Any]) -> PoolSpec:
    entries = (_parsed(PoolRuleEntry, rule) for rule in _list(raw.get("rules")))
    rules = tuple(pool_rule(entry) if entry else _NO_POOL_RULE for entry in entries)
    return PoolSpec(model, rules=rules, chain=chain_of(_parsed(PoolFailover, raw.get("failover"))))


def _parsed(model: type[E], raw: Any) -> E | None:
    try:
        return model.model_validate(raw, context=ANY_STRATEGY)
    except ValidationError:
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
