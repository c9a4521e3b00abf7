"""Requests that are made up, to find out where a configuration would lead them. Pure.

Their conditions mean what those of the router mean (``actors.router.rules.compiled``), with one difference: what hangs on a
candidate is not known here. A test holds the two together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from actors.patterns import DAY_S, name_test, time_of_day_test, wall_at
from messages.policy import NORMAL, PRIORITIES, Condition, ConditionKind


@dataclass(frozen=True, slots=True)
class Walker:
    """A request that is made up."""

    model: str
    tenant: str = ""
    user: str = ""
    regions: tuple[str, ...] = ()
    priority: int = NORMAL
    has_tools: bool = False
    has_vision: bool = False
    prompt_tokens: int = 0
    wall: float = 0.0
    """Unix seconds."""
    labels: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        named = [f"of {kind} {name!r}" for kind, name in (("tenant", self.tenant), ("user", self.user)) if name]
        named += [f"for region {' or '.join(map(repr, self.regions))}"] if self.regions else []
        named += [f"of priority {PRIORITIES[self.priority]}"] if self.priority != NORMAL else []
        named += [f"with {what}" for what, has in (("tools", self.has_tools), ("pictures", self.has_vision)) if has]
        named += [f"of {self.prompt_tokens} tokens"] if self.prompt_tokens else []
        named += [f"whose key has {', '.join(f'{label}={value}' for label, value in self.labels)}"] if self.labels else []
        return " ".join(["a request", f"for {self.model!r}", *named])


Test = Callable[[Walker, str, int], bool | None]
"""Asks a condition of a walker, the public name it has come to, and its priority by now. None: that cannot be told."""


class Values:
    """What conditions look at, kind by kind, in the order of ``Walker``; what a request says of itself first."""

    def __init__(self) -> None:
        self.tenants: dict[str, None] = {"": None}
        self.users: dict[str, None] = {"": None}
        self.regions: dict[tuple[str, ...], None] = {(): None}
        self.priorities: dict[int, None] = {NORMAL: None}
        self.tools: dict[bool, None] = {False: None}
        self.vision: dict[bool, None] = {False: None}
        self.tokens: dict[int, None] = {0: None}
        self.walls: dict[float, None] = {}
        self.labels: dict[tuple[tuple[str, str], ...], None] = {(): None}
        self._together: dict[str, str] = {}
        """All labels noted so far; of two values of one the later."""

    def walkers(self, model: str) -> Iterator[Walker]:
        """Requests for ``model`` with all values of each, the plainest first."""
        for labels, tenant, user, regions in product(self.labels, self.tenants, self.users, self.regions):
            rest = product(self.priorities, self.tools, self.vision, self.tokens, self.walls or (0.0,))
            for priority, tools, vision, tokens, wall in rest:
                yield Walker(model, tenant, user, regions, priority, tools, vision, tokens, wall, labels)

    def add_labels(self, labels: tuple[tuple[str, str], ...]) -> None:
        """Note the labels that a rule of a pool asks for: alone, and with those noted before it."""
        self._together |= labels
        self.labels |= {labels: None, tuple(sorted(self._together.items())): None}

    def collect(self, condition: Condition, *, with_names: bool) -> None:
        """Note the values of a condition on both sides of each border. Names only where one may have to be met."""
        kind, number = condition.kind, condition.number
        for part in condition.parts:
            self.collect(part, with_names=with_names or kind is ConditionKind.NOT)
        if kind is ConditionKind.TENANT and with_names:
            self.tenants |= dict.fromkeys(condition.names)
        elif kind is ConditionKind.USER and with_names:
            self.users |= dict.fromkeys(condition.names)
        elif kind is ConditionKind.REGION and with_names:
            together = dict.fromkeys((*(name for said in self.regions for name in said), *condition.names))
            self.regions |= {(name,): None for name in condition.names} | {tuple(together): None}
        elif kind is ConditionKind.MIN_PRIORITY:
            self.priorities |= {max(0, int(number) - 1): None, int(number): None}
        elif kind is ConditionKind.HAS_TOOLS:
            self.tools[True] = None
        elif kind is ConditionKind.HAS_VISION:
            self.vision[True] = None
        elif kind is ConditionKind.TOKEN_COUNT_OVER:
            self.tokens[int(number) + 1] = None
        elif kind is ConditionKind.TIME_RANGE:
            # Ranges of time that have a moment in common have one at which a range begins or has just ended.
            self.walls |= {wall_at(time_s % DAY_S, condition.zone): None for time_s in (condition.start_s, condition.end_s)}


def named_models(condition: Condition) -> list[str]:
    """All models that a condition names."""
    found = list(condition.names) if condition.kind is ConditionKind.MODEL else []
    for part in condition.parts:
        found += named_models(part)
    return found


def demanded_models(condition: Condition) -> list[str] | None:
    """The models one of which a request must be for to match; None: it need not."""
    if condition.kind is ConditionKind.MODEL:
        return list(condition.names)
    if condition.kind is ConditionKind.ALL:
        return next((found for found in map(demanded_models, condition.parts) if found is not None), None)
    if condition.kind is ConditionKind.ANY:
        parts = [demanded_models(part) for part in condition.parts]
        return None if None in parts else [name for part in parts for name in part or ()]
    return None


def test_of(condition: Condition) -> Test:
    """A condition ready to be asked, as the router would ask it. Kleene's logic, with prices unknown."""
    kind, names, number = condition.kind, frozenset(condition.names), condition.number
    match kind:
        case ConditionKind.ALL | ConditionKind.ANY:
            return _joined([test_of(part) for part in condition.parts], decisive=kind is ConditionKind.ANY)
        case ConditionKind.NOT:
            return _negated(test_of(condition.parts[0]))
        case ConditionKind.ALWAYS | ConditionKind.NEVER:
            return lambda walker, model, priority: kind is ConditionKind.ALWAYS
        case ConditionKind.MODEL:
            return lambda walker, model, priority: model in names or walker.model in names
        case ConditionKind.MODEL_PATTERN:
            fits = name_test(condition.names[0])
            return lambda walker, model, priority: fits(model) or fits(walker.model)
        case ConditionKind.TENANT:
            return lambda walker, model, priority: walker.tenant in names
        case ConditionKind.USER:
            return lambda walker, model, priority: walker.user in names
        case ConditionKind.REGION:
            return lambda walker, model, priority: not names.isdisjoint(walker.regions)
        case ConditionKind.MIN_PRIORITY:
            return lambda walker, model, priority: priority >= number
        case ConditionKind.HAS_TOOLS:
            return lambda walker, model, priority: walker.has_tools
        case ConditionKind.HAS_VISION:
            return lambda walker, model, priority: walker.has_vision
        case ConditionKind.TOKEN_COUNT_OVER:
            return lambda walker, model, priority: walker.prompt_tokens > number
        case ConditionKind.TIME_RANGE:
            is_now = time_of_day_test(condition.start_s, condition.end_s, condition.zone)
            return lambda walker, model, priority: is_now(walker.wall)
        case _:
            return lambda walker, model, priority: None


def _joined(parts: list[Test], *, decisive: bool) -> Test:
    def test(walker: Walker, model: str, priority: int) -> bool | None:
        said = [part(walker, model, priority) for part in parts]
        if decisive in said:
            return decisive
        return None if None in said else not decisive

    return test


def _negated(part: Test) -> Test:
    def test(walker: Walker, model: str, priority: int) -> bool | None:
        said = part(walker, model, priority)
        return None if said is None else not said

    return test
