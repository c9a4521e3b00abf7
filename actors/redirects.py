"""Redirects that lead in a circle, as far as a configuration alone tells. Pure.

Found by trying: requests are made up of what the conditions look at, and led through pools and rules as the router leads them.
So what ``circles`` finds is a circle for certain, with a request that walks it, which the router would answer 500. What hangs
on prices (each condition is taken as possibly true and possibly false), and what only a request with a pin of its own would
walk, is for ``doubts``: it may be meant, so it is told and not refused. Not found are circles that only some of several labels
lead into. The search has bounds; where it stops at one, ``unfinished`` names the rules and pools it did not see through.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from actors.walkers import Test, Values, Walker, demanded_models, named_models, test_of
from messages.policy import ActionKind, Condition, ConditionKind, PoolRule, PoolSpec, Rule

_ALL = "\0"
"""Stands for all names where rules hold for any."""

WALKS_MAX = 20_000
"""Requests tried for one configuration."""
WALKS_OF_A_NAME_MAX = 2_000
STEPS_MAX = 100_000
"""Rules asked for one configuration, those of pools too."""
DOUBT_STEPS_MAX = 50_000
"""The same of ``doubts``, beyond those."""
PINS_MAX = 2_000
"""Names with pins of clients' own that are tried."""
BRANCHES_MAX = 64
"""Ways that one request may take, as prices are."""


Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One redirect of a circle."""

    source: str
    target: str
    who: str
    path: Path
    """Of the redirect, as in the file."""

    def __str__(self) -> str:
        return f"{self.who} sends {self.source!r} to {self.target!r}"


@dataclass(frozen=True, slots=True)
class Circle:
    """Redirects that lead back to where they began, and a request that takes them."""

    steps: tuple[Step, ...]
    walker: Walker
    hangs_on_prices: bool = False

    @property
    def reason(self) -> str:
        """For people, going on from the place of the first step."""
        leads, would = ("may lead", "could") if self.hangs_on_prices else ("leads", "would")
        after = ", as prices are" if self.hangs_on_prices else ""
        return f"{leads} in a circle: {', '.join(map(str, self.steps))}; this is where {self.walker} {would} go{after}"


@dataclass(slots=True)
class _Way:
    """How far a request has come."""

    name: str
    """Where it is."""
    priority: int
    places: dict[str, int]
    """The names it has been at, with how many steps had led there."""
    steps: list[Step] = field(default_factory=list)
    used: set[int] = field(default_factory=set)
    is_certain: bool = True
    """Whether no price decides that it goes there."""

    def fork(self) -> "_Way":
        """The same once more, to go another way."""
        return _Way(self.name, self.priority, dict(self.places), [*self.steps], set(self.used), self.is_certain)

    def go(self, step: Step, ready: "_Ready | None", *, is_certain: bool) -> None:
        """Take one step."""
        self.steps.append(step)
        self.name = step.target
        self.places.setdefault(step.target, len(self.steps))
        self.is_certain = self.is_certain and is_certain
        if ready is not None:
            self.used.add(ready.place)
            said = (one.priority for one in ready.rule.then if one.kind is ActionKind.PRIORITY)
            self.priority = next(said, self.priority)


@dataclass(frozen=True, slots=True)
class _Ready:
    place: int
    rule: Rule
    test: Test
    target: str
    """Of its redirect; empty: it has none."""


@dataclass(slots=True)
class Redirects:
    """The redirects of one configuration. Rules that are switched off do not count; the others must be sound by themselves."""

    rules: Sequence[Rule]
    pools: Sequence[PoolSpec]
    public: Callable[[str], str]
    """One name for all that lead to the same place."""
    model_of: Callable[[str], str | None]
    """The model there; None: the name leads nowhere."""
    names: Sequence[str] = ()
    """What clients may ask for besides: a rule may go by a pattern, or by what a name is not."""
    pins: Sequence[str] = ()
    """Pins that they may write."""
    _of_name: dict[str, list[_Ready]] = field(default_factory=dict)
    _of_any: list[_Ready] = field(default_factory=list)
    _known: dict[tuple[str, str], list[_Ready]] = field(default_factory=dict)
    _pools: Mapping[str, PoolSpec] = field(default_factory=dict)
    steps: int = 0
    """Rules asked so far."""
    unfinished: dict[str, None] = field(default_factory=dict)
    """After the search: the rules and pools that redirect and were not seen through."""
    _steps_max: int = STEPS_MAX
    _walks: int = 0
    _seen: set[frozenset[Path]] = field(default_factory=set)

    def circles(self) -> Iterator[Circle]:
        """Each circle once, from that of its redirects which stands first in the file: rules before pools."""
        mentioned = self._mentioned()
        if mentioned:
            self._index()
            yield from self._search(self._starts([*mentioned, *self.names]), minds_prices=False)

    def doubts(self) -> Iterator[Circle]:
        """What ``circles``, which must have been gone through, leaves open: circles as prices are, and circles of pins."""
        mentioned = self._mentioned()
        if not mentioned:
            return
        self._steps_max, self._walks = self.steps + DOUBT_STEPS_MAX, 0
        names = [*mentioned, *self.names]
        if any(rule.enabled and _looks_at_candidates(rule.when) for rule in self.rules):
            yield from self._search(self._starts(names), minds_prices=True)
        tried = frozenset(names)
        starts = self._starts([pin for pin in self.pins[:PINS_MAX] if pin not in tried])
        yield from self._search(starts, minds_prices=True)
        if starts and len(self.pins) > PINS_MAX:
            self._give_up(starts)

    def _search(self, starts: list[str], *, minds_prices: bool) -> Iterator[Circle]:
        for place, start in enumerate(starts):
            self._known.clear()
            for count, walker in enumerate(self._walkers(start)):
                if count >= WALKS_OF_A_NAME_MAX:
                    self._give_up([start])
                    break
                self._walks += 1
                if self._walks > WALKS_MAX or self.steps > self._steps_max:
                    break
                steps, is_certain = self._circle_of(walker, minds_prices=minds_prices)
                paths = [step.path for step in steps]
                if steps and frozenset(paths) not in self._seen:
                    self._seen.add(frozenset(paths))
                    first = paths.index(min(paths, key=self._order))
                    yield Circle(steps[first:] + steps[:first], walker, not is_certain)
            if self._walks > WALKS_MAX or self.steps > self._steps_max:
                self._give_up(starts[place:])
                return

    def _give_up(self, starts: list[str]) -> None:
        """Note whose redirects were not seen through: those that may take requests for ``starts``."""
        found = {ready.place: ready for ready in self._of_any if ready.target}
        pools: dict[str, None] = {}
        for start in starts:
            model = self.model_of(self.public(start)) or start
            named = (*self._of_name.get(start, ()), *self._of_name.get(model, ()))
            found |= {ready.place: ready for ready in named if ready.target}
            if any(rule.redirect for rule in self._rules_of_pool(model)):
                pools[f"the pool of {model!r}"] = None
        self.unfinished |= {f"rule {ready.rule.name!r}": None for _, ready in sorted(found.items())} | pools

    def _order(self, path: Path) -> tuple[bool, int]:
        kind, place, *_ = path
        return (True, list(self._pools).index(str(place))) if kind == "pools" else (False, int(place))

    def _index(self) -> None:
        self._pools = {pool.model: pool for pool in self.pools}
        enabled = [(place, rule) for place, rule in enumerate(self.rules) if rule.enabled]
        # Sorting is stable, so ties keep their order, as in the router's book.
        for place, rule in sorted(enabled, key=lambda entry: -entry[1].priority):
            ready = _Ready(place, rule, test_of(rule.when), _target(rule))
            demanded = demanded_models(rule.when)
            if demanded is None:
                self._of_any.append(ready)
            for name in dict.fromkeys(demanded or ()):
                self._of_name.setdefault(name, []).append(ready)

    def _mentioned(self) -> list[str]:
        """The names that redirects have to do with, as they are written."""
        found: dict[str, None] = {}
        for rule in self.rules:
            if rule.enabled and _target(rule):
                found |= dict.fromkeys((*named_models(rule.when), _target(rule)))
        for pool in self.pools:
            for redirect in [rule.redirect for rule in pool.rules if rule.redirect]:
                found |= dict.fromkeys((pool.model, redirect))
        return list(found)

    def _starts(self, written: list[str]) -> list[str]:
        """Of the names ``written`` those whose requests may come into a circle, in their order."""
        names = list(dict.fromkeys(written))
        turning = self._turning(names)
        return [name for name in names if self.public(name) in turning or self._is_pulled(name)]

    def _turning(self, names: list[str]) -> set[str]:
        """The public ones of ``names`` from which redirects lead on and on, whatever else their rules ask for."""
        for_all = {self.public(ready.target) for ready in self._of_any if ready.target}
        ahead: dict[str, set[str]] = {_ALL: for_all}
        for written in (*names, *for_all):
            name = self.public(written)
            model = self.model_of(name) or name
            asked = (ready for key in dict.fromkeys((written, model)) for ready in self._of_name.get(key, ()))
            targets = [ready.target for ready in asked if ready.target]
            targets += [rule.redirect for rule in self._rules_of_pool(model) if rule.redirect]
            ways = ahead.setdefault(name, {_ALL} if for_all - {name} else set())
            # What is sent to where it is goes nowhere.
            ways |= {self.public(target) for target in targets} - {name}
        behind: dict[str, list[str]] = {}
        for name, targets_of in ahead.items():
            for target in targets_of:
                behind.setdefault(target, []).append(name)
        left = {name: len(targets_of) for name, targets_of in ahead.items()}
        dead = [name for name, count in left.items() if not count]
        while dead:
            for name in behind.get(dead.pop(), ()):
                left[name] -= 1
                if not left[name]:
                    dead.append(name)
        return {name for name, count in left.items() if count}

    def _is_pulled(self, name: str) -> bool:
        """Whether a rule may still hold for ``name`` as it was written when another has sent the request elsewhere."""
        model = self.model_of(self.public(name)) or name
        own = {ready.place for ready in self._of_name.get(name, ()) if ready.target}
        if not own:
            return False
        others = {ready.place for ready in (*self._of_name.get(model, ()), *self._of_any) if ready.target}
        return len(own | others) > 1 or any(rule.redirect for rule in self._rules_of_pool(model))

    def _candidates(self, written: str, model: str) -> list[_Ready]:
        """The rules that may match, in the order they are asked."""
        found = self._known.get((written, model))
        if found is None:
            named = {ready.place: ready for name in (model, written) for ready in self._of_name.get(name, ())}
            found = self._of_any
            if named:
                found = sorted([*self._of_any, *named.values()], key=lambda ready: (-ready.rule.priority, ready.place))
                self.steps += len(found)
            self._known[written, model] = found
        return found

    def _walkers(self, start: str) -> Iterator[Walker]:
        """Requests for ``start`` that differ in what rules and pools ahead look at. None where these cannot close a circle."""
        values = Values()
        ways: dict[str, set[str]] = {}
        todo = [self.public(start)]
        while todo and self.steps <= self._steps_max:
            name = todo.pop()
            model = self.model_of(name)
            if name in ways or model is None:
                continue
            candidates = self._candidates(start, model)
            self.steps += len(candidates)
            for ready in candidates:
                values.collect(ready.rule.when, with_names=bool(ready.target))
            redirects = [rule for rule in self._rules_of_pool(model) if rule.redirect]
            self.steps += len(redirects)
            for rule in redirects:
                values.add_labels(rule.labels)
            targets = [ready.target for ready in candidates if ready.target] + [rule.redirect for rule in redirects]
            ways[name] = {self.public(target) for target in targets} - {name}
            todo += sorted(ways[name])
        before = -1
        while before != len(ways):
            # Who leads to nobody that leads on is no part of a circle.
            before = len(ways)
            ways = {name: ahead for name, ahead in ways.items() if not ahead.isdisjoint(ways)}
        if ways:
            yield from values.walkers(start)

    def _circle_of(self, walker: Walker, *, minds_prices: bool) -> tuple[tuple[Step, ...], bool]:
        """The circle in which a request is redirected, and whether that is certain; empty: it gets somewhere, or who knows."""
        start = self.public(walker.model)
        open_ways, forks = [_Way(start, walker.priority, {start: 0})], 0
        while open_ways:
            way = open_ways.pop()
            ahead = [one for one in self._ahead(walker, way) if one[2] or minds_prices]
            ahead = [one for one in ahead if one[0].target not in ("", way.name)]
            for step, _, is_certain in ahead:
                if step.target in way.places:
                    return (*way.steps[way.places[step.target] :], step), is_certain and way.is_certain
            forks += max(0, len(ahead) - 1)
            if forks > BRANCHES_MAX:
                self._give_up([walker.model])
                break
            for place, (step, ready, is_certain) in reversed(list(enumerate(ahead))):
                fork = way.fork() if place else way
                fork.go(step, ready, is_certain=is_certain)
                open_ways.append(fork)
        return (), False

    def _ahead(self, walker: Walker, way: _Way) -> list[tuple[Step, _Ready | None, bool]]:
        """Where a request may go from where it is, by which rule, and whether that is certain; the likeliest first."""
        name, model = way.name, self.model_of(way.name)
        if model is None:
            return []
        step = self._pool_step(frozenset(walker.labels), name, model)
        if step is not None:
            return [(step, None, True)]
        return [
            (Step(name, self.public(ready.target), f"rule {ready.rule.name!r}", _path(ready)), ready, is_certain)
            for ready, is_certain in self._matches(walker, model, way)
            if ready.target
        ]

    def _rules_of_pool(self, model: str) -> Sequence[PoolRule]:
        pool = self._pools.get(model)
        return pool.rules if pool is not None else ()

    def _pool_step(self, labels: frozenset[tuple[str, str]], name: str, model: str) -> Step | None:
        """Where the pool sends a request; an empty target: away. None: it lets it pass."""
        for place, rule in enumerate(self._rules_of_pool(model)):
            self.steps += 1
            if labels.issuperset(rule.labels):
                target = "" if rule.deny else self.public(rule.redirect)
                path = ("pools", model, "rules", place, "redirect")
                return None if target == name else Step(name, target, f"the pool of {model!r}", path)
        return None

    def _matches(self, walker: Walker, model: str, way: _Way) -> Iterator[tuple[_Ready, bool]]:
        """The rules that may be the first to match, up to the one that does if none before it does. Certain: none is before."""
        is_certain = True
        for ready in self._candidates(walker.model, model):
            self.steps += 1
            verdict = ready.test(walker, model, way.priority) if ready.place not in way.used else False
            if verdict is None:
                is_certain = False
            if verdict is not False:
                yield ready, is_certain
            if verdict:
                return


def _looks_at_candidates(condition: Condition) -> bool:
    is_one = condition.kind in (ConditionKind.COST_UNDER, ConditionKind.LATENCY_UNDER)
    return is_one or any(map(_looks_at_candidates, condition.parts))


def _target(rule: Rule) -> str:
    return next((action.names[0] for action in rule.then if action.kind is ActionKind.REDIRECT and action.names), "")


def _path(ready: _Ready) -> Path:
    then = [action.kind for action in ready.rule.then].index(ActionKind.REDIRECT)
    return ("rules", ready.place, "then", then, ActionKind.REDIRECT.value)
