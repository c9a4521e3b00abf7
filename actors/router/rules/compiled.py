"""A rule ready to be asked: its condition is a closure, made once, that walks no tree and looks up no kinds.

Always: verdicts follow Kleene's strong three-valued logic (Introduction to Metamathematics, 1952, § 64). None is "depends on
the provider": what only a candidate or its bid can tell is unknown until then, and ``not`` of unknown is unknown.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from actors.patterns import name_test, time_of_day_test
from actors.router.rules.facts import Facts, Terms
from messages.policy import Condition, ConditionKind, Rule

Check = Callable[[Facts, Terms | None], bool | None]
"""Asks a condition of a request and, if there is one yet, of a candidate."""

_OF_CANDIDATES = (ConditionKind.COST_UNDER, ConditionKind.LATENCY_UNDER)
_OF_ROUTE = (ConditionKind.MODEL, ConditionKind.MODEL_PATTERN, ConditionKind.TENANT)


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule and the closure of its condition."""

    rule: Rule
    is_selective: bool
    """True: a part of the condition looks at candidates, so that the verdict on a request alone may be None."""
    check: Check = field(repr=False, compare=False)
    reach: Check | None = field(repr=False, compare=False)
    """The same where nothing is known but names and tenant: False is final for every request with these. None: no part asks."""

    def verdict(self, facts: Facts, terms: Terms | None) -> bool | None:
        """Whether the condition holds; None: that depends on the provider, or on its bid."""
        return self.check(facts, terms)


def compile_rule(rule: Rule) -> CompiledRule:
    """Make a rule ready. Raises ``ValueError``, which names the rule, if its condition cannot be evaluated."""
    try:
        reach = compiled(rule.when, of_route=True) if _looks_at(rule.when, _OF_ROUTE) else None
        return CompiledRule(rule, _looks_at(rule.when, _OF_CANDIDATES), compiled(rule.when), reach)
    except ValueError as error:
        raise ValueError(f"rule {rule.name!r}: {error}") from None


def _looks_at(condition: Condition, kinds: tuple[ConditionKind, ...]) -> bool:
    return condition.kind in kinds or any(_looks_at(part, kinds) for part in condition.parts)


def compiled(condition: Condition, *, of_route: bool = False) -> Check:
    """The closure of a condition. ``of_route``: all that is not said by names and tenant counts as unknown.

    Raises ``ValueError`` if a pattern, a time zone or the part of a ``not`` is wrong.
    """
    kind = condition.kind
    if kind is ConditionKind.ALL or kind is ConditionKind.ANY:
        parts = tuple(compiled(part, of_route=of_route) for part in condition.parts)
        if len(parts) == 1:
            return parts[0]
        return _all(parts) if kind is ConditionKind.ALL else _any(parts)
    if kind is ConditionKind.NOT:
        if len(condition.parts) != 1:
            raise ValueError("not needs one condition")
        return _not(compiled(condition.parts[0], of_route=of_route))
    if kind is ConditionKind.ALWAYS:
        return _yes
    if kind is ConditionKind.NEVER:
        return _no
    made = _leaf(condition)
    return _unknown if of_route and kind not in _OF_ROUTE else made


def _leaf(condition: Condition) -> Check:
    kind, number = condition.kind, condition.number
    if kind is ConditionKind.TIME_RANGE:
        return _time_range(condition)
    if kind is ConditionKind.MODEL_PATTERN:
        return _model_pattern(condition)
    if kind is ConditionKind.MIN_PRIORITY:
        return lambda facts, terms: facts.priority >= number
    if kind is ConditionKind.HAS_TOOLS:
        return lambda facts, terms: "tools" in facts.profile.needs
    if kind is ConditionKind.HAS_VISION:
        return lambda facts, terms: "vision" in facts.profile.needs
    if kind is ConditionKind.TOKEN_COUNT_OVER:
        return lambda facts, terms: facts.profile.prompt_tokens > number
    if kind is ConditionKind.COST_UNDER:
        return _cost_under(number)
    if kind is ConditionKind.LATENCY_UNDER:
        return _latency_under(number)
    return _one_of(kind, condition.names)


def _one_of(kind: ConditionKind, listed: tuple[str, ...]) -> Check:
    names = frozenset(listed)
    if kind is ConditionKind.MODEL:
        return lambda facts, terms: facts.model in names or facts.profile.model in names
    if kind is ConditionKind.TENANT:
        return lambda facts, terms: facts.profile.tenant in names
    if kind is ConditionKind.USER:
        return lambda facts, terms: facts.profile.user in names
    if kind is ConditionKind.REGION:
        return lambda facts, terms: not names.isdisjoint(facts.profile.hints.regions)
    raise ValueError(f"there is no condition {kind!r}")


def _yes(facts: Facts, terms: Terms | None) -> bool | None:
    return True


def _no(facts: Facts, terms: Terms | None) -> bool | None:
    return False


def _unknown(facts: Facts, terms: Terms | None) -> bool | None:
    return None


def _all(parts: tuple[Check, ...]) -> Check:
    def check(facts: Facts, terms: Terms | None) -> bool | None:
        verdict: bool | None = True
        for part in parts:
            said = part(facts, terms)
            if said is False:
                return False
            if said is None:
                verdict = None
        return verdict

    return check


def _any(parts: tuple[Check, ...]) -> Check:
    def check(facts: Facts, terms: Terms | None) -> bool | None:
        verdict: bool | None = False
        for part in parts:
            said = part(facts, terms)
            if said is True:
                return True
            if said is None:
                verdict = None
        return verdict

    return check


def _not(part: Check) -> Check:
    def check(facts: Facts, terms: Terms | None) -> bool | None:
        said = part(facts, terms)
        return None if said is None else not said

    return check


def _model_pattern(condition: Condition) -> Check:
    if len(condition.names) != 1:
        raise ValueError("model_pattern needs one pattern")
    fits = name_test(condition.names[0])

    def check(facts: Facts, terms: Terms | None) -> bool | None:
        model, written = facts.model, facts.profile.model
        return fits(model) or (written != model and fits(written))

    return check


def _time_range(condition: Condition) -> Check:
    is_now = time_of_day_test(condition.start_s, condition.end_s, condition.zone)
    return lambda facts, terms: is_now(facts.wall)


def _cost_under(usd_per_1k: float) -> Check:
    def check(facts: Facts, terms: Terms | None) -> bool | None:
        if terms is None:
            return None
        cost = terms.cost_per_1k_usd
        return cost is not None and cost < usd_per_1k

    return check


def _latency_under(limit_ms: float) -> Check:
    def check(facts: Facts, terms: Terms | None) -> bool | None:
        if terms is None or not terms.is_asked:
            return None
        latency_s = terms.latency_s
        return latency_s is None or latency_s * 1000.0 < limit_ms

    return check
