"""Redirects that lead in a circle, as far as a configuration alone tells. Pure.

Found by trying: requests are made up of what the conditions look at, and led through pools and rules as the router leads them.
So what is found is a circle for certain, with a request that walks it, which the router would answer 500. Not found are circles
that hang on prices, those that only a request with a pin of its own would walk, those that only some of several labels lead
into, and those beyond the bounds below.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from actors.walkers import Test, Values, Walker, demanded_models, named_models, test_of
from messages.policy import ActionKind, PoolRule, PoolSpec, Rule

_ALL = "\0"
"""Stands for all names where rules hold for any."""

WALKS_MAX = 20_000
"""Requests tried for one configuration."""
WALKS_OF_A_NAME_MAX = 2_000
STEPS_MAX = 100_000
"""Rules asked for one configuration, those of pools too."""


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

    @property
    def reason(self) -> str:
        """For people, going on from the place of the first step."""
        return f"leads in a circle: {', '.join(map(str, self.steps))}; this is where {self.walker} would go"


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
    names: Iterable[str] = ()
    """What clients may ask for besides: a rule may go by a pattern, or by what a name is not."""
    _of_name: dict[str, list[_Ready]] = field(default_factory=dict)
    _of_any: list[_Ready] = field(default_factory=list)
    _known: dict[tuple[str, str], list[_Ready]] = field(default_factory=dict)
    _pools: Mapping[str, PoolSpec] = field(default_factory=dict)
    steps: int = 0
    """Rules asked so far."""

    def circles(self) -> Iterator[Circle]:
        """Each circle once, from that of its redirects which stands first in the file: rules before pools."""
        mentioned = self._mentioned()
        if not mentioned:
            return
        self._index()
        seen: set[frozenset[Path]] = set()
        walks = 0
        for start in self._starts(mentioned):
            self._known.clear()
            for walker in islice(self._walkers(start), WALKS_OF_A_NAME_MAX):
                walks += 1
                if walks > WALKS_MAX or self.steps > STEPS_MAX:
                    return
                steps = self._circle_of(walker)
                paths = [step.path for step in steps]
                if steps and frozenset(paths) not in seen:
                    seen.add(frozenset(paths))
                    first = paths.index(min(paths, key=self._order))
                    yield Circle(steps[first:] + steps[:first], walker)

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

    def _starts(self, mentioned: list[str]) -> list[str]:
        """The names whose requests may come into a circle, the likeliest first."""
        names = list(dict.fromkeys((*mentioned, *self.names)))
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
        while todo and self.steps <= STEPS_MAX:
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

    def _circle_of(self, walker: Walker) -> tuple[Step, ...]:
        """The circle in which a request is redirected; empty: it gets somewhere, or that cannot be told."""
        way, steps, used, priority = [self.public(walker.model)], [], set[int](), walker.priority
        labels = frozenset(walker.labels)
        while True:
            name = way[-1]
            model = self.model_of(name)
            if model is None:
                return ()
            step = self._pool_step(labels, name, model)
            if step is None:
                ready = self._match(walker, model, used, priority)
                if ready is None or not ready.target:
                    return ()
                used.add(ready.place)
                priority = next((one.priority for one in ready.rule.then if one.kind is ActionKind.PRIORITY), priority)
                step = Step(name, self.public(ready.target), f"rule {ready.rule.name!r}", _path(ready))
            if not step.target or step.target == name:
                return ()
            steps.append(step)
            if step.target in way:
                return tuple(steps[way.index(step.target) :])
            way.append(step.target)

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

    def _match(self, walker: Walker, model: str, used: set[int], priority: int) -> _Ready | None:
        for ready in self._candidates(walker.model, model):
            self.steps += 1
            verdict = ready.test(walker, model, priority) if ready.place not in used else False
            if verdict is None:
                return None
            if verdict:
                return ready
        return None


def _target(rule: Rule) -> str:
    return next((action.names[0] for action in rule.then if action.kind is ActionKind.REDIRECT and action.names), "")


def _path(ready: _Ready) -> Path:
    then = [action.kind for action in ready.rule.then].index(ActionKind.REDIRECT)
    return ("rules", ready.place, "then", then, ActionKind.REDIRECT.value)
