"""What names a condition demands: the keys of the index over rules.

A demand is a list of alternatives; a request that meets none of them cannot match. An alternative names the models of which
the request must bear one (as written or after aliases), and the tenants of which it must be one; None: any.
"""

from dataclasses import dataclass

from messages.policy import Condition, ConditionKind

ALTERNATIVES_MAX = 64
"""Beyond so many a demand is made less exact instead of longer."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One alternative."""

    models: frozenset[str] | None = None
    tenants: frozenset[str] | None = None

    @property
    def is_open(self) -> bool:
        """Whether any request meets it."""
        return self.models is None and self.tenants is None

    @property
    def key_count(self) -> int:
        """Under how many keys it would be filed."""
        return (1 if self.models is None else len(self.models)) * (1 if self.tenants is None else len(self.tenants))


Demands = tuple[Demand, ...]
ANYTHING: Demands = (Demand(),)
NOTHING: Demands = ()


def demands(condition: Condition, *, negated: bool = False) -> Demands:
    """The alternatives of a condition, or of its negation (by De Morgan's laws, which hold in Kleene's logic too).

    Sound, not exact: whatever matches meets one of them; what meets one need not match.
    """
    kind = condition.kind
    if kind is ConditionKind.NOT:
        return demands(condition.parts[0], negated=not negated)
    if kind is ConditionKind.ALWAYS or kind is ConditionKind.NEVER:
        return NOTHING if (kind is ConditionKind.NEVER) is not negated else ANYTHING
    if kind is ConditionKind.ALL or kind is ConditionKind.ANY:
        parts = [demands(part, negated=negated) for part in condition.parts]
        return _both(parts) if (kind is ConditionKind.ALL) is not negated else _either(parts)
    if not negated and kind is ConditionKind.MODEL:
        return (Demand(models=frozenset(condition.names)),) if condition.names else NOTHING
    if not negated and kind is ConditionKind.TENANT:
        return (Demand(tenants=frozenset(condition.names)),) if condition.names else NOTHING
    return ANYTHING


def _either(parts: list[Demands]) -> Demands:
    found = tuple(dict.fromkeys(demand for part in parts for demand in part))
    return ANYTHING if len(found) > ALTERNATIVES_MAX or any(demand.is_open for demand in found) else found


def _both(parts: list[Demands]) -> Demands:
    found = ANYTHING
    for part in parts:
        if len(found) * len(part) > ALTERNATIVES_MAX:
            # One of the two alone is weaker than both, and so still sound.
            found = part if len(part) < len(found) else found
            continue
        pairs = (_and(one, other) for one in found for other in part)
        found = tuple(dict.fromkeys(demand for demand in pairs if demand is not None))
    return found


def _and(one: Demand, other: Demand) -> Demand | None:
    # A request has one tenant, but two names: it may meet two disjoint sets of models at once, so they do not intersect.
    models = one.models
    if models is None or (other.models is not None and len(other.models) < len(models)):
        models = other.models
    tenants = one.tenants
    if tenants is None:
        tenants = other.tenants
    elif other.tenants is not None:
        tenants &= other.tenants
        if not tenants:
            return None
    return Demand(models, tenants)
