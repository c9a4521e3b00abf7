"""The book of rules: which of them may match a request for this model and this tenant, in the order they are asked.

Owns: the compiled rules, an index over the names they demand, and a bounded cache of what it told.
Always: a rule that could match is never left out. What is cached depends on nothing but the three names it is keyed on; a match
itself, which depends on time, region, priority and more, is never cached.
"""

from collections.abc import Sequence

from actors.router.rules.compiled import CompiledRule, compile_rule
from actors.router.rules.demands import Demand, demands
from actors.router.rules.facts import Facts
from messages.policy import NORMAL, Rule
from messages.routing import RequestProfile

CACHE_CELLS = 65_536
"""Room of the cache, in rules told: that many, however long the tuples are, or at most 4096 names."""
_ENTRY_CELLS = 16
KEYS_MAX = 1024
"""A demand with more pairs of model and tenant is filed by the smaller of the two sides alone."""

_NONE: tuple[CompiledRule, ...] = ()
_Key = tuple[str | None, str | None]


class RuleBook:
    """The rules of one configuration."""

    __slots__ = ("_cache", "_cells", "_index", "_rules", "names")

    def __init__(self, rules: tuple[CompiledRule, ...], names: tuple[str, ...]) -> None:
        """``rules`` in the order they are asked."""
        self.names = names
        self._rules = rules
        self._index: dict[_Key, list[int]] = {}
        self._cache: dict[tuple[str, str, str], tuple[CompiledRule, ...]] = {}
        self._cells = 0
        for position, rule in enumerate(rules):
            for key in dict.fromkeys(key for demand in demands(rule.rule.when) for key in _keys(demand)):
                self._index.setdefault(key, []).append(position)

    @staticmethod
    def build(rules: Sequence[Rule]) -> "RuleBook":
        """Compile the enabled rules, highest priority first, equal ones in the order given.

        Raises ``ValueError`` for a rule that ``actors.consistency`` would have refused: a wrong pattern, an unknown zone.
        """
        # Sorting is stable, so ties keep their order.
        enabled = sorted((rule for rule in rules if rule.enabled), key=lambda rule: -rule.priority)
        return RuleBook(tuple(compile_rule(rule) for rule in enabled), tuple(rule.name for rule in rules))

    def candidates(self, requested: str, model: str, tenant: str) -> tuple[CompiledRule, ...]:
        """Those that may match a request for ``requested`` (as written; ``model`` after aliases) by ``tenant``, in order.

        One look-up, except for names that were not asked for lately.
        """
        if not self._index:
            return _NONE
        key = (requested, model, tenant)
        found = self._cache.get(key)
        return found if found is not None else self._collect(key)

    def _collect(self, key: tuple[str, str, str]) -> tuple[CompiledRule, ...]:
        requested, model, tenant = key
        index = self._index
        positions: list[int] = []
        for name in (None, model) if requested == model else (None, model, requested):
            positions += index.get((name, tenant), ())
            positions += index.get((name, None), ())
        facts = Facts(RequestProfile(model=requested, tenant=tenant), model, 0.0, NORMAL)
        rules = (self._rules[position] for position in sorted(dict.fromkeys(positions)))
        found = tuple(rule for rule in rules if rule.reach(facts, None) is not False)
        self._keep(key, found)
        return found

    def _keep(self, key: tuple[str, str, str], found: tuple[CompiledRule, ...]) -> None:
        self._cells += _ENTRY_CELLS + len(found)
        self._cache[key] = found
        while self._cells > CACHE_CELLS:
            # The oldest goes: a name in use is soon back, and one look-up stays all it costs otherwise.
            self._cells -= _ENTRY_CELLS + len(self._cache.pop(next(iter(self._cache))))


def _keys(demand: Demand) -> list[_Key]:
    models: list[str | None] = [None] if demand.models is None else [*sorted(demand.models)]
    tenants: list[str | None] = [None] if demand.tenants is None else [*sorted(demand.tenants)]
    if demand.key_count > KEYS_MAX and demand.models is not None and demand.tenants is not None:
        if len(models) <= len(tenants):
            tenants = [None]
        else:
            models = [None]
    return [(model, tenant) for model in models for tenant in tenants]
