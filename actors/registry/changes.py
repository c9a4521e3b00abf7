"""What a change makes of the overlay: the new one, or why not. Pure.

Looked at here: whether what is to be changed exists, and the bounds of single values. Whether the whole still holds
together is for ``verdict``.

A provider's status is one word, so saying one forgets the last: ``ready`` or ``unchecked`` lets it take calls (and whether
it is ready, health finds out), ``disabled`` switches it off, ``unavailable`` and ``auth_failed`` keep it from calls until
something else is said. ``enabled`` alone switches the provider and leaves what was said of its status. The last provider
may be taken out if no rule, tenant or pool needs it: then there is nobody to ask, and every request is refused.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from actors.registry.overlay import Overlay, Patch, with_entry, without_entry
from actors.registry.paths import path_text
from actors.registry.soundness import public_names
from messages.changes import (
    Change,
    ChangeFault,
    ChangeRefused,
    DeleteAlias,
    DeleteRule,
    EnableRule,
    PatchProvider,
    PutAlias,
    PutRule,
    RegisterProvider,
    SetDefault,
    SetStrategy,
    UnregisterProvider,
)
from messages.control import ConfigSnapshot, ProviderSpec

WEIGHT_MAX = 1000
PRIORITY_MAX = 1_000_000
NAME_MAX = 200
"""Characters of a name."""
REASON_MAX = 500
"""Characters of the reason of a status."""
ENTRIES_MAX = 10_000
"""Providers, aliases, rules, pools and tenants, each."""

READY = frozenset(("ready", "unchecked"))
SAID = frozenset(("unavailable", "auth_failed"))
DISABLED = "disabled"

Outcome = Overlay | ChangeRefused


def changed(change: Change, overlay: Overlay, file: ConfigSnapshot, in_force: ConfigSnapshot) -> Outcome:
    """``overlay`` after ``change``. ``in_force`` is ``file`` and ``overlay`` together."""
    return _METHODS[type(change)](change, overlay, file, in_force)


def position(specs: Iterable[ProviderSpec], provider: str) -> int | None:
    """Where a provider stands; None: nowhere."""
    return next((place for place, spec in enumerate(specs) if spec.id == provider), None)


def refused(fault: ChangeFault, reason: str, *path: str | int) -> ChangeRefused:
    """A refusal with its path as in the file."""
    return ChangeRefused(fault, path_text(path), reason)


def _register(change: RegisterProvider, overlay: Overlay, file: ConfigSnapshot, in_force: ConfigSnapshot) -> Outcome:
    spec = change.spec
    place = position(in_force.providers, spec.id)
    if place is not None:
        return refused(ChangeFault.CONFLICT, f"there is a provider '{spec.id}' already", "providers", place, "id")
    at = ("providers", len(in_force.providers))
    if len(in_force.providers) >= ENTRIES_MAX:
        return _invalid(f"there are {ENTRIES_MAX} providers already", "providers")
    fault = _name_fault(spec.id, *at, "id") or _number_fault(spec.weight, spec.priority, *at)
    if fault is not None:
        return fault
    return replace(overlay, added=(*overlay.added, spec), patches=without_entry(overlay.patches, spec.id))


def _unregister(change: UnregisterProvider, overlay: Overlay, file: ConfigSnapshot, in_force: ConfigSnapshot) -> Outcome:
    name = change.provider
    if position(in_force.providers, name) is None:
        return _no_provider(name, "providers")
    removed = overlay.removed
    if position(file.providers, name) is not None and name not in removed:
        removed = (*removed, name)
    return replace(
        overlay,
        added=tuple(spec for spec in overlay.added if spec.id != name),
        removed=removed,
        patches=without_entry(overlay.patches, name),
        default="" if overlay.default == name else overlay.default,
    )


def _patch(change: PatchProvider, overlay: Overlay, file: ConfigSnapshot, in_force: ConfigSnapshot) -> Outcome:
    name = change.provider
    place = position(in_force.providers, name)
    if place is None:
        return _no_provider(name, "providers")
    at = ("providers", place)
    fault = _number_fault(change.weight, change.priority, *at) or _status_fault(change, *at)
    if fault is not None:
        return fault
    enabled, status = change.enabled, change.status
    if status is not None:
        enabled, status = status != DISABLED, status if status in SAID else ""
    patch = Patch(enabled, status, change.status_reason, change.weight, change.priority)
    said = overlay.patches.get(name, Patch()).then(patch)
    if said.enabled and not said.status:
        said = replace(said, status_reason="")
    return replace(overlay, patches=with_entry(overlay.patches, name, said))


def _set_default(change: SetDefault, overlay: Overlay, file: ConfigSnapshot, in_force: ConfigSnapshot) -> Outcome:
    if position(in_force.providers, change.provider) is None:
        return _no_provider(change.provider, "default_provider")
    return replace(overlay, default=change.provider)


def _set_strategy(change: SetStrategy, overlay: Overlay, file: ConfigSnapshot, in_force: ConfigSnapshot) -> Outcome:
    """An empty strategy for all goes back to the file's; for a pool or tenant, to the one for all."""
    model, tenant, strategy = change.model, change.tenant, change.strategy
    if model and tenant:
        return _invalid("give a model or a tenant, not both", "routing", "strategy")
    if not model and not tenant:
        return replace(overlay, strategy=strategy)
    section, name = ("pools", model) if model else ("tenants", tenant)
    said = overlay.pool_strategies if model else overlay.tenant_strategies
    known = [pool.model for pool in file.pools] if model else [spec.name for spec in file.tenants]
    fault = _name_fault(name, section) or _full(section, name, said)
    if fault is not None:
        return fault
    if model and strategy and model not in known and not _is_served(model, in_force):
        return refused(ChangeFault.NOT_FOUND, f"no provider serves a model '{model}'", "pools")
    said = with_entry(said, name, strategy) if strategy or name in known else without_entry(said, name)
    return replace(overlay, pool_strategies=said) if model else replace(overlay, tenant_strategies=said)


def _put_alias(change: PutAlias, overlay: Overlay, file: ConfigSnapshot, in_force: ConfigSnapshot) -> Outcome:
    name, target = change.name, change.target
    fault = _name_fault(name, "aliases") or _name_fault(target, "aliases", name) or _full("aliases", name, overlay.aliases)
    return fault or replace(overlay, aliases=with_entry(overlay.aliases, name, target))


def _delete_alias(change: DeleteAlias, overlay: Overlay, file: ConfigSnapshot, in_force: ConfigSnapshot) -> Outcome:
    name = change.name
    if name not in dict(in_force.aliases):
        return refused(ChangeFault.NOT_FOUND, f"there is no alias '{_short(name)}'", "aliases")
    if name in dict(file.aliases):
        return replace(overlay, aliases=with_entry(overlay.aliases, name, None))
    return replace(overlay, aliases=without_entry(overlay.aliases, name))


def _put_rule(change: PutRule, overlay: Overlay, file: ConfigSnapshot, in_force: ConfigSnapshot) -> Outcome:
    rule = change.rule
    fault = _name_fault(rule.name, "rules", len(in_force.rules), "name") or _full("rules", rule.name, overlay.rules)
    if fault is not None:
        return fault
    flags = without_entry(overlay.rules_enabled, rule.name)
    return replace(overlay, rules=with_entry(overlay.rules, rule.name, rule), rules_enabled=flags)


def _delete_rule(change: DeleteRule, overlay: Overlay, file: ConfigSnapshot, in_force: ConfigSnapshot) -> Outcome:
    name = change.name
    if not _has_rule(in_force, name):
        return _no_rule(name)
    rules = with_entry(overlay.rules, name, None) if _has_rule(file, name) else without_entry(overlay.rules, name)
    return replace(overlay, rules=rules, rules_enabled=without_entry(overlay.rules_enabled, name))


def _enable_rule(change: EnableRule, overlay: Overlay, file: ConfigSnapshot, in_force: ConfigSnapshot) -> Outcome:
    if not _has_rule(in_force, change.name):
        return _no_rule(change.name)
    return replace(overlay, rules_enabled=with_entry(overlay.rules_enabled, change.name, change.enabled))


def _is_served(model: str, in_force: ConfigSnapshot) -> bool:
    names = public_names(in_force)
    return names is None or model in names


def _has_rule(snapshot: ConfigSnapshot, name: str) -> bool:
    return any(rule.name == name for rule in snapshot.rules)


def _no_rule(name: str) -> ChangeRefused:
    return refused(ChangeFault.NOT_FOUND, f"there is no rule '{_short(name)}'", "rules")


def _no_provider(name: str, section: str) -> ChangeRefused:
    return refused(ChangeFault.NOT_FOUND, f"there is no provider '{_short(name)}'", section)


def _invalid(reason: str, *path: str | int) -> ChangeRefused:
    return refused(ChangeFault.INVALID, reason, *path)


def _name_fault(name: str, *path: str | int) -> ChangeRefused | None:
    if 0 < len(name) <= NAME_MAX:
        return None
    return _invalid(f"a name has 1 to {NAME_MAX} characters", *path)


def _full(section: str, name: str, entries: Iterable[str]) -> ChangeRefused | None:
    names = list(entries)
    if name in names or len(names) < ENTRIES_MAX:
        return None
    return _invalid(f"{ENTRIES_MAX} were changed through the admin API already", section)


def _number_fault(weight: int | None, priority: int | None, *path: str | int) -> ChangeRefused | None:
    if weight is not None and not 0 <= weight <= WEIGHT_MAX:
        return _invalid(f"must be 0 to {WEIGHT_MAX}", *path, "weight")
    if priority is not None and not -PRIORITY_MAX <= priority <= PRIORITY_MAX:
        return _invalid(f"must be {-PRIORITY_MAX} to {PRIORITY_MAX}", *path, "priority")
    return None


def _status_fault(change: PatchProvider, *path: str | int) -> ChangeRefused | None:
    status, reason = change.status, change.status_reason
    if reason and (status is None or status in READY):
        return _invalid("goes with a status that keeps calls away", *path, "status_reason")
    if len(reason) > REASON_MAX:
        return _invalid(f"has {REASON_MAX} characters at most", *path, "status_reason")
    if status is None:
        return None
    if status not in READY and status not in SAID and status != DISABLED:
        return _invalid("must be ready, unchecked, unavailable, auth_failed or disabled", *path, "status")
    if change.enabled is not None and change.enabled == (status == DISABLED):
        return _invalid(f"contradicts status '{status}'", *path, "enabled")
    return None


def _short(name: str) -> str:
    return name if len(name) <= NAME_MAX else name[:NAME_MAX] + "…"


_METHODS: dict[type[Any], Callable[[Any, Overlay, ConfigSnapshot, ConfigSnapshot], Outcome]] = {
    RegisterProvider: _register,
    UnregisterProvider: _unregister,
    PatchProvider: _patch,
    SetDefault: _set_default,
    SetStrategy: _set_strategy,
    PutAlias: _put_alias,
    DeleteAlias: _delete_alias,
    PutRule: _put_rule,
    DeleteRule: _delete_rule,
    EnableRule: _enable_rule,
}
