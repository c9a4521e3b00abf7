"""What the admin API has said beyond the file, and what the two together say.

Nothing here changes: every change makes a new overlay. An entry about something the file does not have (any more) sleeps
until the file has it again; only what contradicts is refused, see ``verdict``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from messages.control import ConfigSnapshot, ProviderSpec
from messages.policy import PoolSpec, Rule, TenantSpec

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Patch:
    """What was said of one provider. None: nothing."""

    enabled: bool | None = None
    status: str | None = None
    """As ``ProviderSpec.status``."""
    status_reason: str = ""
    weight: int | None = None
    priority: int | None = None

    def on(self, spec: ProviderSpec) -> ProviderSpec:
        """``spec`` with what was said."""
        return replace(
            spec,
            enabled=spec.enabled if self.enabled is None else self.enabled,
            status=spec.status if self.status is None else self.status,
            status_reason=spec.status_reason if self.status is None else self.status_reason,
            weight=spec.weight if self.weight is None else self.weight,
            priority=spec.priority if self.priority is None else self.priority,
        )

    def then(self, later: "Patch") -> "Patch":
        """This patch, and what ``later`` says instead."""
        return Patch(
            self.enabled if later.enabled is None else later.enabled,
            self.status if later.status is None else later.status,
            self.status_reason if later.status is None else later.status_reason,
            self.weight if later.weight is None else later.weight,
            self.priority if later.priority is None else later.priority,
        )


@dataclass(frozen=True, slots=True)
class Overlay:
    """All that the admin API has said. An empty name or None: deleted, or nothing said."""

    added: tuple[ProviderSpec, ...] = ()
    """In the order they came, behind those of the file."""
    removed: tuple[str, ...] = ()
    """Providers of the file that are out. One that is registered again is here and in ``added``."""
    patches: Mapping[str, Patch] = field(default_factory=dict)
    default: str = ""
    strategy: str = ""
    pool_strategies: Mapping[str, str] = field(default_factory=dict)
    tenant_strategies: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str | None] = field(default_factory=dict)
    rules: Mapping[str, Rule | None] = field(default_factory=dict)
    rules_enabled: Mapping[str, bool] = field(default_factory=dict)


def compose(file: ConfigSnapshot, overlay: Overlay) -> ConfigSnapshot:
    """File and overlay as one snapshot with the generation of ``file``. What contradicts is left in, for ``policy_faults``.

    The default is the one said last; without one the file's, as long as that one was never taken out; else the first.
    """
    removed = frozenset(overlay.removed)
    own = tuple(spec for spec in file.providers if spec.id not in removed)
    providers = tuple(_patched(spec, overlay.patches) for spec in own + overlay.added)
    by_file = file.default_provider if file.default_provider not in removed else ""
    first = providers[0].id if providers else ""
    return replace(
        file,
        providers=providers,
        default_provider=overlay.default or by_file or first,
        aliases=_aliases(file, overlay),
        routing=replace(file.routing, strategy=overlay.strategy) if overlay.strategy else file.routing,
        rules=_rules(file, overlay),
        tenants=_tenants(file, overlay),
        pools=_pools(file, overlay),
    )


def with_entry(entries: Mapping[K, V], key: K, value: V) -> dict[K, V]:
    """A copy with one entry set; one that is there keeps its place."""
    return {**entries, key: value}


def without_entry(entries: Mapping[K, V], key: K) -> dict[K, V]:
    """A copy without one entry."""
    return {name: value for name, value in entries.items() if name != key}


def _patched(spec: ProviderSpec, patches: Mapping[str, Patch]) -> ProviderSpec:
    patch = patches.get(spec.id)
    return spec if patch is None else patch.on(spec)


def _aliases(file: ConfigSnapshot, overlay: Overlay) -> tuple[tuple[str, str], ...]:
    if not overlay.aliases:
        return file.aliases
    together = {**dict(file.aliases), **overlay.aliases}
    return tuple((name, target) for name, target in sorted(together.items(), key=_by_name) if target is not None)


def _by_name(entry: tuple[str, str | None]) -> str:
    return entry[0]


def _rules(file: ConfigSnapshot, overlay: Overlay) -> tuple[Rule, ...]:
    """The file's rules, replaced where they stand; then those that were put."""
    together: dict[str, Rule | None] = {rule.name: rule for rule in file.rules}
    together.update(overlay.rules)
    return tuple(_switched(rule, overlay.rules_enabled) for rule in together.values() if rule is not None)


def _switched(rule: Rule, flags: Mapping[str, bool]) -> Rule:
    enabled = flags.get(rule.name, rule.enabled)
    return rule if enabled == rule.enabled else replace(rule, enabled=enabled)


def _tenants(file: ConfigSnapshot, overlay: Overlay) -> tuple[TenantSpec, ...]:
    """An empty strategy needs no entry of its own: none says the same."""
    said = overlay.tenant_strategies
    known = {tenant.name for tenant in file.tenants}
    own = (replace(tenant, strategy=said.get(tenant.name, tenant.strategy)) for tenant in file.tenants)
    added = (TenantSpec(name, strategy=strategy) for name, strategy in said.items() if strategy and name not in known)
    return (*own, *added)


def _pools(file: ConfigSnapshot, overlay: Overlay) -> tuple[PoolSpec, ...]:
    said = overlay.pool_strategies
    known = {pool.model for pool in file.pools}
    own = (replace(pool, strategy=said.get(pool.model, pool.strategy)) for pool in file.pools)
    added = (PoolSpec(model, strategy) for model, strategy in said.items() if strategy and model not in known)
    return (*own, *added)
