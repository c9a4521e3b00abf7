"""Faults of a policy that no single key tells: names nobody has, rules that contradict themselves, circles.

Pure, and asked by whoever takes a configuration: the check of a file and the registry find the same. The schema of the file has
looked at every value by itself before.
"""

from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from actors.naming import Naming, Server, split
from actors.patterns import name_test, time_zone
from actors.redirects import Redirects
from messages.policy import (
    CONDITION_DEPTH_MAX,
    Action,
    ActionKind,
    ChainStep,
    Condition,
    ConditionKind,
    PoolSpec,
    Rule,
    TenantSpec,
)

Path = tuple[str | int, ...]

_NAMED = (ConditionKind.MODEL, ConditionKind.TENANT, ConditionKind.USER, ConditionKind.REGION)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that cannot be meant."""

    path: Path
    """As in the file: ``("rules", 0, "then", 1, "providers")``."""
    reason: str
    """A plain sentence that goes on from the path."""


def policy_faults(
    *,
    servers: Sequence[Server],
    strategies: Container[str],
    aliases: Mapping[str, str],
    rules: Sequence[Rule],
    tenants: Sequence[TenantSpec],
    pools: Sequence[PoolSpec],
    default_provider: str | None,
    strategy: str,
) -> list[Fault]:
    """Everything that cannot be meant, in the order of the file; disabled rules too, for they can be switched on.

    ``servers`` are the providers; ``aliases`` lead from name to name; no ``default_provider`` is the first one; an empty
    ``strategy`` is the default one.
    """
    names = frozenset(name for server in servers for name in server.models)
    takes_any = any(server.takes_any for server in servers)
    ids = frozenset(server.id for server in servers)
    known = _Known(servers, ids, strategies, None if takes_any else names, names, aliases)
    faults: list[Fault] = []
    if default_provider and default_provider not in known.providers:
        faults.append(Fault(("default_provider",), f"there is no provider {default_provider!r}"))
    faults += _alias_circles(aliases)
    faults += known.strategy_faults(("routing", "strategy"), strategy)
    for pool in pools:
        faults += _pool_faults(pool, known)
    first: dict[str, int] = {}
    sound: list[Rule] = []
    for index, rule in enumerate(rules):
        if rule.name in first:
            faults.append(Fault(("rules", index, "name"), f"is already the name of rules[{first[rule.name]}]"))
        first.setdefault(rule.name, index)
        own = list(_rule_faults(("rules", index), rule, known))
        faults += own
        # A rule that is not sound by itself leads nowhere.
        sound.append(replace(rule, enabled=False) if own else rule)
    naming = Naming(servers, default_provider, aliases)
    circles = Redirects(sound, pools, naming.place, naming.model_of, [*sorted(names), *aliases]).circles()
    faults += [Fault(circle.steps[0].path, circle.reason) for circle in circles]
    for tenant in tenants:
        path: Path = ("tenants", tenant.name)
        faults += known.provider_faults((*path, "allowed_providers"), tenant.allowed_providers or ())
        faults += known.provider_faults((*path, "preferred_providers"), tenant.preferred_providers)
        faults += known.strategy_faults((*path, "strategy"), tenant.strategy)
    return faults


@dataclass(frozen=True, slots=True)
class _Known:
    servers: Sequence[Server]
    providers: frozenset[str]
    strategies: Container[str]
    models: Collection[str] | None
    listed: Collection[str]
    aliases: Mapping[str, str]

    def provider_faults(self, path: Path, names: Sequence[str]) -> Iterator[Fault]:
        for name, count in _counted(names).items():
            if name not in self.providers:
                yield Fault(path, f"there is no provider {name!r}")
            elif count > 1:
                yield Fault(path, f"provider {name!r} is named {'twice' if count == 2 else f'{count} times'}")

    def strategy_faults(self, path: Path, name: str) -> Iterator[Fault]:
        if name and name not in self.strategies:
            yield Fault(path, f"there is no strategy {name!r}")

    def target_faults(self, path: Path, target: str) -> Iterator[Fault]:
        """Of the model of a redirect."""
        if self.models is None or self.public(target) in self.models:
            return
        # A pin is taken as it is: whom it names may come and go at run time.
        _, pinned = split(self.public(target))
        if not pinned or pinned not in self.models:
            yield Fault(path, f"no provider serves a model {target!r}")

    def public(self, name: str) -> str:
        """The name after aliases: a public name stands for itself, and a circle leads nowhere."""
        for _ in range(len(self.aliases)):
            if name in self.listed or name not in self.aliases:
                break
            name = self.aliases[name]
        return name


def _counted(names: Sequence[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _alias_circles(aliases: Mapping[str, str]) -> Iterator[Fault]:
    for start in _circle_starts(aliases):
        yield Fault(("aliases", start), "leads back to itself")


def _circle_starts(steps: Mapping[str, str]) -> Iterator[str]:
    """Of each circle the member that stands first in ``steps``; what only leads into a circle is not in it."""
    place = {name: position for position, name in enumerate(steps)}
    walked: set[str] = set()
    for start in steps:
        way: dict[str, None] = {}
        name = start
        while name in steps and name not in walked and name not in way:
            way[name] = None
            name = steps[name]
        if name in way:
            members = list(way)
            yield min(members[members.index(name) :], key=place.__getitem__)
        walked.update(way)


def _pool_faults(pool: PoolSpec, known: _Known) -> Iterator[Fault]:
    path: Path = ("pools", pool.model)
    if known.models is not None and pool.model not in known.models:
        yield Fault(path, "no provider serves a model of this name")
    yield from known.strategy_faults((*path, "strategy"), pool.strategy)
    for index, rule in enumerate(pool.rules):
        at: Path = (*path, "rules", index)
        if rule.deny == bool(rule.redirect):
            yield Fault(at, "must either deny or redirect" + (", not both" if rule.deny else ""))
        if rule.redirect and known.public(rule.redirect) == known.public(pool.model):
            yield Fault((*at, "redirect"), f"redirects {pool.model!r} to itself")
        elif rule.redirect:
            yield from known.target_faults((*at, "redirect"), rule.redirect)
    at = (*path, "failover", "chain")
    faults = list(_chain_faults(at, pool.chain, known))
    yield from faults
    named = {name for step in pool.chain for name in step.providers}
    is_closed = bool(pool.chain) and not faults and all(step.providers for step in pool.chain)
    if is_closed and not any(server.id in named and server.can_take(pool.model) for server in known.servers):
        yield Fault(at, f"no provider in it serves {pool.model!r}, and nobody else would be asked")


def _chain_faults(path: Path, chain: Sequence[ChainStep], known: _Known) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for index, step in enumerate(chain):
        at: Path = (*path, index)
        yield from known.strategy_faults((*at, "strategy"), step.strategy)
        yield from known.provider_faults(at, step.providers)
        for name in dict.fromkeys(step.providers) if step.providers else ("any",):
            if name in first:
                yield Fault(at, f"{name} stands in step {first[name]} of the chain already")
            first.setdefault(name, index)


_BEFORE_BIDS = (ActionKind.REJECT, ActionKind.REDIRECT)


def _rule_faults(path: Path, rule: Rule, known: _Known) -> Iterator[Fault]:
    yield from _condition_faults((*path, "when"), rule.when, 1)
    kinds = [action.kind for action in rule.then]
    for index, action in enumerate(rule.then):
        at: Path = (*path, "then", index, action.kind.value)
        yield from _action_faults(at, action, rule, known)
        if action.kind is ActionKind.REJECT and len(kinds) > 1:
            yield Fault(at, "what is rejected goes nowhere: reject must be the only action")
        if action.kind is ActionKind.REDIRECT and ActionKind.REDIRECT in kinds[:index]:
            yield Fault(at, "is the second redirect of this rule")
        if action.kind in _BEFORE_BIDS and _asks_latency(rule.when):
            yield Fault(at, "comes before anybody is asked, when latency_under is not known yet")


def _asks_latency(condition: Condition) -> bool:
    return condition.kind is ConditionKind.LATENCY_UNDER or any(_asks_latency(part) for part in condition.parts)


def _action_faults(path: Path, action: Action, rule: Rule, known: _Known) -> Iterator[Fault]:
    kind, names = action.kind, action.names
    if kind is ActionKind.PRIORITY:
        return
    if kind is ActionKind.PROVIDERS:
        if not names:
            yield Fault(path, "names no provider")
        yield from known.provider_faults(path, names)
    elif len(names) != 1 or not names[0]:
        yield Fault(path, "needs one name" if kind is not ActionKind.REJECT else "needs a reason")
    elif kind is ActionKind.STRATEGY:
        yield from known.strategy_faults(path, names[0])
    elif kind is ActionKind.REDIRECT:
        target = known.public(names[0])
        if _demands_only(rule.when, target, known):
            yield Fault(path, f"redirects {names[0]!r} to itself")
        else:
            yield from known.target_faults(path, names[0])


def _demands_only(condition: Condition, model: str, known: _Known) -> bool:
    """Whether only requests for ``model``, under whatever name, can match: to send these there would change nothing."""
    kind = condition.kind
    if kind is ConditionKind.MODEL:
        return bool(condition.names) and all(known.public(name) == model for name in condition.names)
    if kind is ConditionKind.ALL:
        return any(_demands_only(part, model, known) for part in condition.parts)
    if kind is ConditionKind.ANY:
        return bool(condition.parts) and all(_demands_only(part, model, known) for part in condition.parts)
    return False


def _condition_faults(path: Path, condition: Condition, depth: int) -> Iterator[Fault]:
    if depth > CONDITION_DEPTH_MAX:
        yield Fault(path, f"conditions are nested deeper than {CONDITION_DEPTH_MAX} levels")
        return
    kind = condition.kind
    at: Path = (*path, kind.value)
    if kind is ConditionKind.NOT and len(condition.parts) != 1:
        yield Fault(at, "needs one condition")
    elif kind is ConditionKind.NOT:
        yield from _condition_faults(at, condition.parts[0], depth + 1)
    elif kind is ConditionKind.ALL or kind is ConditionKind.ANY:
        for index, part in enumerate(condition.parts):
            yield from _condition_faults((*at, index), part, depth + 1)
    elif kind in _NAMED and not condition.names:
        yield Fault(at, "names nothing")
    elif kind is ConditionKind.MODEL_PATTERN:
        yield from _pattern_faults(at, condition)
    elif kind is ConditionKind.TIME_RANGE:
        try:
            time_zone(condition.zone)
        except ValueError as error:
            yield Fault((*at, "zone"), str(error))


def _pattern_faults(path: Path, condition: Condition) -> Iterator[Fault]:
    if len(condition.names) != 1:
        yield Fault(path, "needs one pattern")
        return
    try:
        name_test(condition.names[0])
    except ValueError as error:
        yield Fault(path, str(error))
