"""Policy: what the configuration says of a request before anybody is asked. Tenant, then pool rules, then routing rules.

Owns: nothing that changes but caches of what cannot change: a policy is built from one ``ConfigSnapshot`` and replaced whole.
Always: a request that no tenant, pool or rule concerns costs two look-ups, however many of them there are; a redirect leads
on with all stages asked anew for the new name, and never in a circle.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from actors.requirements import lacking
from actors.router.chain import Chain, Step
from actors.router.rules.book import RuleBook
from actors.router.rules.compiled import CompiledRule
from actors.router.rules.facts import Facts, Terms, cost_per_1k
from actors.router.rules.labels import first_match
from actors.router.strategies.base import Memory, Strategy
from actors.router.strategies.guard import guarded_index
from actors.router.table import Entry, Route, RoutingTable
from messages.control import ConfigSnapshot
from messages.policy import NORMAL, ActionKind, PoolSpec, TenantSpec
from messages.routing import NO_HINTS, Bid, Exclusion, LeftOut, RequestProfile, RouteError

ORDERS_MAX = 256
"""Static orders kept; one is needed for each strategy and model with more candidates than are asked at once."""
_NO_TENANT = TenantSpec("")
_NO_POOL = PoolSpec("")


@dataclass(slots=True, eq=False)
class Course:
    """What policy makes of a request: who may be asked, by which strategy, within which bounds. Or an error."""

    route: Route
    strategy: Strategy
    entries: tuple[Entry, ...]
    """Candidates, in the order of their definition."""
    is_plain: bool
    """True: bids alone decide, with nobody left out and nobody preferred."""
    barred: Mapping[str, LeftOut] = field(default_factory=dict)
    """Providers of the model that policy leaves out."""
    outside: frozenset[str] = frozenset()
    """Candidates that a rule does not name, for when those it names cannot. Asked for membership only."""
    rules: tuple[str, ...] = ()
    """The rule that matched; several if each but the last redirected to another model."""
    allow_fallback: bool = True
    selective: CompiledRule | None = None
    """The rule, if a part of its condition looks at what providers bid."""
    facts: Facts | None = None
    """What it looks at besides."""
    priority: int = NORMAL
    ceiling_usd: float | None = None
    preferred: tuple[str, ...] = ()
    """Providers in order of preference."""
    chain: Chain | None = None
    """The pool's failover chain."""
    steps: tuple[Step, ...] = ()
    """Of the chain."""
    spills: bool = True
    """False: a provider at its rate limit is not passed over for one that comes after it."""
    error: RouteError | None = None
    reject: str = ""
    detail: str = ""
    """Of ``error``: a sentence."""
    note: str = ""
    """For the record."""
    memory: Memory | None = None
    """Of ``strategy`` for the model, once the router has looked it up."""

    @property
    def rule(self) -> str:
        """The rules that matched, for people."""
        return " → ".join(self.rules)

    def chooser(self, provider: str) -> Strategy:
        """The strategy that chooses among a provider and its like."""
        place = None if self.chain is None else self.chain.place(provider)
        return self.strategy if place is None else self.steps[place].strategy

    def precedence(self) -> dict[str, tuple[bool, int, int]]:
        """Whom policy puts before whom, whatever they bid: by rule, by chain, by a strategy that is an order. Least first."""
        chain, entries, found = self.chain, self.entries, {}
        for entry in entries:
            strategy, step, position = self.chooser(entry.id), 0, 0
            if chain is not None:
                step = chain.place(entry.id) or 0
            if strategy.is_order:
                position = guarded_index(strategy, entries, self.route.model)[0].index(entry)
            found[entry.id] = (entry.id in self.outside, step, position)
        return found

    def suits(self, bid: Bid) -> bool:
        """Whether the rule holds for who made this bid."""
        if self.selective is None or self.facts is None:
            return True
        entry = self.route.entries[self.route.places[bid.provider]]
        latency_s = bid.latency_ewma_s if bid.samples > 0 else None
        terms = Terms(_price(entry, self.facts), latency_s, True)
        return self.selective.verdict(self.facts, terms) is not False


@dataclass(slots=True, eq=False)
class _Chain:
    """What the actions of matching rules have amounted to so far."""

    strategy: str = ""
    priority: int = NORMAL
    providers: tuple[str, ...] | None = None
    allow_fallback: bool = True
    names: list[str] = field(default_factory=list)
    """Rules that matched, in order."""
    selective: CompiledRule | None = None
    redirect: str = ""
    reject: str | None = None

    def take(self, rule: CompiledRule, *, is_selective: bool) -> None:
        """Add the actions of a rule that matches; what it says goes before what one said that redirected to it."""
        spec = rule.rule
        self.redirect = ""
        self.names.append(spec.name)
        self.selective = rule if is_selective else None
        if is_selective:
            self.allow_fallback = spec.allow_fallback
        for action in spec.then:
            if action.kind == ActionKind.PROVIDERS:
                self.providers, self.allow_fallback = action.names, spec.allow_fallback
            elif action.kind == ActionKind.STRATEGY:
                self.strategy = action.names[0]
            elif action.kind == ActionKind.PRIORITY:
                self.priority = action.priority
            elif action.kind == ActionKind.REJECT:
                self.reject = action.names[0]
            else:
                self.redirect = action.names[0]


class Policy:
    """The policy of one generation. ``strategies``: all there are, by name."""

    __slots__ = (
        "_book",
        "_chains",
        "_has_rules",
        "_known",
        "_orders",
        "_pools",
        "_spills",
        "_strategies",
        "_strategy",
        "_table",
        "_tenants",
    )

    def __init__(self, snapshot: ConfigSnapshot, table: RoutingTable, strategies: Mapping[str, Strategy]) -> None:
        self._table = table
        self._strategies = strategies
        self._strategy = snapshot.routing.strategy
        self._tenants = {tenant.name: tenant for tenant in snapshot.tenants}
        self._pools = {pool.model: pool for pool in snapshot.pools}
        self._chains = {pool.model: Chain(pool.chain) for pool in snapshot.pools if pool.chain}
        self._spills = snapshot.routing.failover.on_rate_limit
        self._book = RuleBook.build(snapshot.rules)
        self._has_rules = bool(snapshot.rules)
        self._known: dict[str, Course | None] = {}
        """Courses of listed names and aliases without tenant, rule or hint; None: the name needs a closer look."""
        self._orders: dict[tuple[str, str], Sequence[Entry]] = {}

    @property
    def rule_names(self) -> tuple[str, ...]:
        """Of all rules, disabled ones too."""
        return self._book.names

    def course(self, profile: RequestProfile, wall: Callable[[], float]) -> Course | RouteError:
        """What is to be done with a request; an error where there is not even a model. ``wall`` tells the time in unix s."""
        return self.plain(profile) or self.worked_out(profile, wall())

    def plain(self, profile: RequestProfile) -> Course | None:
        """The same for a request that no tenant, rule or hint concerns; None: all stages see to it (``worked_out``)."""
        name, tenant = profile.model, profile.tenant
        if profile.hints is not NO_HINTS or (tenant and tenant in self._tenants):
            return None
        course = self._known.get(name)
        if course is None and name not in self._known:
            course = self._plain(name)
        if course is None or (self._has_rules and self._book.candidates(name, course.route.model, tenant)):
            return None
        return course

    def _plain(self, name: str) -> Course | None:
        """The course of a name, if it depends on nothing but the name. Kept for names of the configuration."""
        route = self._table.find(name)
        course = None
        if route is not None:
            pool = self._pools.get(route.model, _NO_POOL)
            strategy = self._strategies.get(pool.strategy or self._strategy)
            if not (pool.rules or pool.chain) and strategy is not None:
                is_plain = route.is_plain or (not route.pinned_out and not strategy.is_weighted)
                course = Course(route, strategy, route.entries, is_plain, spills=self._spills)
        if self._table.is_listed(name):
            self._known[name] = course
        return course

    def worked_out(self, profile: RequestProfile, wall: float) -> Course | RouteError:
        """All stages, one after the other; again from the first for each new name a redirect leads to."""
        hints, tenant = profile.hints, self._tenants.get(profile.tenant, _NO_TENANT)
        if hints.strategy and hints.strategy not in self._strategies:
            return RouteError.STRATEGY_NOT_FOUND
        chain = _Chain(priority=hints.priority)
        way, passed, facts = [profile.model], list[Route](), Facts(profile, "", wall, hints.priority)
        while True:
            route = self._table.find(way[-1])
            if route is None:
                return self._nowhere(passed[-1], chain, facts, way) if passed else RouteError.MODEL_NOT_SUPPORTED
            facts = Facts(profile, route.model, wall, chain.priority)
            pool = self._pools.get(route.model, _NO_POOL)
            label_rule = first_match(pool.rules, profile.labels)
            if label_rule is not None and label_rule.deny:
                return self._denied(route, chain, facts, pool)
            redirect = label_rule.redirect if label_rule is not None else ""
            chain.redirect = "" if redirect and self._is_here(redirect, route) else redirect
            if not chain.redirect and self._has_rules:
                self._match(route, facts, chain, tenant)
            if chain.reject is not None or not chain.redirect or self._is_here(chain.redirect, route):
                break
            # By what a name leads to: a circle is one under an alias too.
            if any(self._is_here(chain.redirect, one) for one in passed):
                return self._astray(route, chain, facts, [*way, chain.redirect])
            way.append(chain.redirect)
            passed.append(route)
            # What a condition said of candidates, it said of those the request leaves behind.
            chain.selective = None
        said = hints.strategy or chain.strategy or tenant.strategy
        strategy = self._strategies.get(said or pool.strategy or self._strategy)
        if strategy is None:
            return RouteError.STRATEGY_NOT_FOUND
        course = Course(route, strategy, route.entries, False, priority=chain.priority, facts=facts, spills=self._spills)
        course.chain = self._chains.get(route.model)
        if course.chain is not None:
            course.steps = course.chain.steps(strategy, bool(said), self._strategies.get)
        course.rules, course.selective, course.allow_fallback = tuple(chain.names), chain.selective, chain.allow_fallback
        course.note = f"redirected: {' → '.join(way)}" if len(way) > 1 else ""
        course.preferred = hints.prefer + tenant.preferred_providers
        course.ceiling_usd = _lower(hints.max_cost_usd, tenant.max_cost_usd)
        if chain.reject is not None:
            course.error, course.reject = RouteError.REJECTED, chain.reject
            course.detail = f"rule {chain.names[-1]!r} rejects this request: {chain.reject}"
            course.barred = {entry.id: LeftOut(entry.id, Exclusion.RULE, course.detail) for entry in route.entries}
            return course
        self._sift(course, tenant, chain)
        course.is_plain = self._is_plain(course, profile)
        return course

    def _is_here(self, name: str, route: Route) -> bool:
        """Whether a redirect leads to where the request is already."""
        there = self._table.find(name)
        return there is not None and there.model == route.model and there.entries == route.entries

    def _match(self, route: Route, facts: Facts, chain: _Chain, tenant: TenantSpec) -> None:
        """Let the first rule that matches take its actions. One that looks at candidates matches if it may hold for one.

        Candidates are those whom the request's needs, tenant and pool leave in: who cannot be taken anyway makes no rule match.
        A rule that led here by a redirect is not asked again: it may well match the name as the client wrote it.
        """
        for rule in self._book.candidates(facts.profile.model, route.model, facts.profile.tenant):
            if rule.rule.name in chain.names:
                continue
            verdict = rule.verdict(facts, None)
            if verdict is None and not any(
                _may_hold(rule, entry, facts) and self._stands(entry, route, facts, tenant) for entry in route.entries
            ):
                continue
            if verdict is not False:
                chain.take(rule, is_selective=verdict is None)
                return

    def _stands(self, entry: Entry, route: Route, facts: Facts, tenant: TenantSpec) -> bool:
        """Whether what comes before the rules leaves a candidate in. What the request excludes by a hint is not looked at."""
        chain, allowed = self._chains.get(route.model), tenant.allowed_providers
        if (allowed is not None and entry.id not in allowed) or (chain is not None and chain.place(entry.id) is None):
            return False
        return lacking(entry.spec, entry.offers.get(route.model), facts.profile) is None

    def _sift(self, course: Course, tenant: TenantSpec, chain: _Chain) -> None:
        """Leave out whom tenant, pool and rule do not allow."""
        barred: dict[str, LeftOut] = {}
        outside: list[str] = []
        allowed, rule, facts = tenant.allowed_providers, chain.selective, course.facts
        for entry in course.route.entries:
            is_named = chain.providers is None or entry.id in chain.providers
            if is_named and rule is not None and facts is not None:
                is_named = _may_hold(rule, entry, facts)
            if allowed is not None and entry.id not in allowed:
                barred[entry.id] = LeftOut(entry.id, Exclusion.TENANT, f"tenant {tenant.name}")
            elif course.chain is not None and course.chain.place(entry.id) is None:
                barred[entry.id] = LeftOut(entry.id, Exclusion.CHAIN, f"pool {course.route.model}")
            elif is_named:
                continue
            elif course.allow_fallback:
                outside.append(entry.id)
            else:
                barred[entry.id] = LeftOut(entry.id, Exclusion.RULE, f"rule {chain.names[-1]}")
        course.barred, course.outside = barred, frozenset(outside)
        if barred:
            course.entries = tuple(entry for entry in course.route.entries if entry.id not in barred)

    def _is_plain(self, course: Course, profile: RequestProfile) -> bool:
        route = course.route
        is_bound = course.barred or course.outside or course.preferred or course.selective or course.error or course.chain
        is_free = profile.hints is NO_HINTS and course.ceiling_usd is None and not is_bound
        return is_free and (route.is_plain or (not route.pinned_out and not course.strategy.is_weighted))

    def _denied(self, route: Route, chain: _Chain, facts: Facts, pool: PoolSpec) -> Course:
        labels = ", ".join(f"{name}={value}" for name, value in facts.profile.labels)
        barred = {entry.id: LeftOut(entry.id, Exclusion.LABELS, f"pool {pool.model}") for entry in route.entries}
        course = self._stopped(route, chain, facts, RouteError.ALL_FILTERED)
        course.barred, course.entries = barred, ()
        course.detail = f"the pool of {pool.model!r} denies callers with the labels {labels or 'of everybody'}"
        return course

    def _astray(self, route: Route, chain: _Chain, facts: Facts, way: list[str]) -> Course:
        course = self._stopped(route, chain, facts, RouteError.SELECTION_FAILED)
        course.detail = course.note = f"redirects lead in a circle: {' → '.join(way)}"
        course.barred = {entry.id: LeftOut(entry.id, Exclusion.RULE, "redirected elsewhere") for entry in route.entries}
        return course

    def _nowhere(self, route: Route, chain: _Chain, facts: Facts, way: list[str]) -> Course:
        """A redirect to what nobody serves any more: the configuration cannot know what a provider will list."""
        course = self._stopped(route, chain, facts, RouteError.MODEL_NOT_SUPPORTED)
        course.detail = f"no provider has a model {way[-1]!r}, to which this request was redirected: {' → '.join(way)}"
        course.note = f"redirected: {' → '.join(way)}"
        course.barred = {entry.id: LeftOut(entry.id, Exclusion.RULE, "redirected elsewhere") for entry in route.entries}
        return course

    def _stopped(self, route: Route, chain: _Chain, facts: Facts, error: RouteError) -> Course:
        strategy = self._strategies.get(self._strategy) or next(iter(self._strategies.values()))
        course = Course(route, strategy, route.entries, False, facts=facts, error=error)
        course.rules = tuple(chain.names)
        return course

    def order(self, course: Course) -> tuple[Sequence[Entry], str]:
        """The candidates of a course in the static order of its strategy, and why one of others could not give it, if so."""
        strategy, why = course.strategy, ""
        if strategy.index is None:
            return course.entries, why
        key = (strategy.name, course.route.model)
        route = course.route
        # Not what a name pins, nor what an older configuration has: its queries may still be under way.
        is_whole = course.entries is route.entries and self._table.listed.get(route.model) is route
        order = self._orders.get(key) if is_whole else None
        if order is None:
            if strategy.is_foreign:
                order, why = guarded_index(strategy, course.entries, course.route.model)
            else:
                order = strategy.index(course.entries, course.route.model)
            if is_whole:
                if len(self._orders) >= ORDERS_MAX:
                    del self._orders[next(iter(self._orders))]
                self._orders[key] = order
        return order, why


def _may_hold(rule: CompiledRule, entry: Entry, facts: Facts) -> bool:
    return rule.verdict(facts, Terms(_price(entry, facts), None, False)) is not False


def _price(entry: Entry, facts: Facts) -> float | None:
    """USD per 1000 tokens of the request's model at a provider; None: unknown."""
    model = entry.offers.get(facts.model)
    return None if model is None else cost_per_1k(model.input_price, model.output_price, facts.profile.endpoint)


def _lower(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return one if one < other else other
