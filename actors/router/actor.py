"""The router: tells the providers of a model that there is work, ranks their bids, and answers with a plan.

Owns: the routing table, the memory of the strategies, the open queries and the queue of those that wait, the open plans,
the decision records, and the count of its own decisions.
Accepts: ``RouteQuery`` (answered by ``RoutePlan`` or ``NoRoute``), ``Gathered``, ``Claimed``, ``Withdraw``,
``CapacityFreed``, ``CallEnded``, ``Configured``, its own ``Timer``, and questions about its records.
Always: every query is answered exactly once; no plan names a provider that did not bid; no wake-up is lost (see
``queue``); nothing it keeps grows without bound.

A decision has stages: route by name, tenant, pool and rules (``policy.Policy.course``), exclusions (``candidates.select``),
bids, ceilings and lines (``candidates.offers``), health tiers, strategy. Each stage notes whom it leaves out and why, in
the query's ``Pending``; the record is made of that when somebody asks.
"""

from collections.abc import Callable, Mapping
from typing import Any

from actors.kernel import Context, Ref, Resident
from actors.router.affinity import Affinity
from actors.router.alarm import Alarm
from actors.router.answers import no_route, no_start, plan_of, teach
from actors.router.candidates import all_ready, next_batch, offers, rank, ranked_by, remember, select
from actors.router.exploring import Exploring
from actors.router.hedging import Hedging
from actors.router.pending import ANSWERED, Pending, State, head_start_s, is_dry_run
from actors.router.plans import STALE_S, OpenPlans
from actors.router.policy import Course, Policy
from actors.router.queue import PAUSE_S, WaitingQueue, waits_on
from actors.router.recorder import WITHDRAWN, Question, Recorder
from actors.router.rounds import Rounds
from actors.router.strategies import STRATEGIES
from actors.router.strategies.base import Ask, Memories, Memory, Ranked, Strategy
from actors.router.table import Entry, RoutingTable
from messages.calls import AttemptKind, CallEnded, Outcome
from messages.control import ConfigSnapshot, Configured, Timer
from messages.decisions import GetDecision, GetReasons, GetRouterStats, RecentDecisions, StrategyFailed
from messages.policy import NORMAL
from messages.routing import CapacityFreed, Claimed, Gathered, RequestProfile, RouteError, RouteQuery, Withdraw

RouterMail = RouteQuery | Gathered | Claimed | Withdraw | CapacityFreed | CallEnded | Question | GetRouterStats
_NOBODY: list[str] = []
_ASKING, _DONE, _EXPLORE, _SUCCESS = State.ASKING, State.DONE, AttemptKind.EXPLORE, Outcome.SUCCESS
"""A global is read faster than a member of an enum."""
_FAULTS: Ref[StrategyFailed] = Ref("faults")


class RouterActor(Resident):
    """See the head of this file. ``seed`` is what the decision records name as the source of chance."""

    def __init__(self, snapshot: ConfigSnapshot, seed: str = "", strategies: Mapping[str, Strategy] = STRATEGIES) -> None:
        self._strategies = strategies
        self._record = Recorder(snapshot.routing.decisions_kept, seed or f"{snapshot.seed}/router")
        self._hedging, self._exploring, self._affinity = Hedging(), Exploring(snapshot.routing), Affinity()
        self._requests = 0
        self._plans = OpenPlans()
        self._adopt(snapshot)
        self._memories = Memories()
        self._open = self._plans.by_query
        self._rounds = Rounds()
        self._queue = WaitingQueue()
        self._arrivals = self._freed_count = 0
        self._alarm, self._unsettled = Alarm(), list[str]()

    def start(self, context: Context) -> None:
        """Nothing to do: timers are set when there is something to wait for."""

    def handle(self, message: RouterMail | Configured | Timer, context: Context) -> None:
        """Take one message. An unknown one is a ``KeyError``; a test holds ``METHODS`` to the union above."""
        if isinstance(message, CallEnded):  # Every request brings four: compiled, to look up and call costs five times this.
            self._on_ended(message, context)
        elif isinstance(message, RouteQuery):
            self._on_query(message, context)
        elif isinstance(message, Gathered):
            self._on_gathered(message, context)
        elif isinstance(message, Claimed):
            self._on_claimed(message, context)
        else:
            METHODS[message.__class__](self, message, context)
        if self._unsettled:
            self._settle(context)
        self._alarm.is_half_way = False

    def invariant(self) -> str | None:
        """None while plans, records, rounds and lines agree and the alarm is set."""
        if self._alarm.is_half_way:
            return "a turn was left half-way, and its timer with it"
        fault = self._plans.fault() or self._record.fault()
        if fault is not None:
            return fault
        fault = self._rounds.fault(pending for pending in self._open.values() if pending.state is not _DONE)
        if fault is not None:
            return fault
        return self._queue.fault(self._plans, self._unsettled)

    # -- a query and its rounds

    def _on_query(self, query: RouteQuery, context: Context) -> None:
        now = context.now()
        query_id, profile = query.query_id, query.profile
        if (before := self._open.get(query_id)) is not None:
            if before.tally is not None:
                self._close_plan(query_id)
            else:
                self._refuse(before, context, RouteError.SELECTION_FAILED)
        is_dry = not query.may_wait and is_dry_run(query)
        if not (query.refused or is_dry or query.hedge):
            self._record.total += 1
        course = self._policy.plain(profile) or self._policy.worked_out(profile, context.wall())
        if not isinstance(course, Course):
            self._refuse_at_once(query, context, course)
            return
        self._arrivals += 1
        until = now + self._routing.queue_max_wait_s
        strategy, route = course.strategy, course.route
        memory = course.memory or self._memory_of(course)
        pending = Pending(
            query, context.defer(), strategy, memory, course, route, self._table.ids, self._table.generation, is_dry,
            until if until < query.deadline else query.deadline, self._arrivals, now, self._freed_count,
        )  # fmt: skip
        self._open[query_id] = pending
        if profile.affinity:
            home = self._affinity.home_of(profile.affinity, route.model, self._routing.affinity, now)
            pending.home = "" if self._record.has_failed(query_id, home) else home
        if course.rules or course.error is not None or course.priority != NORMAL:
            pending.head_start_s = head_start_s(course.priority, self._routing.queue_max_wait_s)
            if not (is_dry or query.tried or query.refused):
                self._record.hit(course.rules)
            if course.error is not None:
                self._refuse(pending, context, course.error)
                return
        self._ask(pending, now, context)

    def _memory_of(self, course: Course) -> Memory:
        course.memory = memory = self._memories.of(course.strategy.name, course.route.model)
        return memory

    def _begin_again(self, pending: Pending, now: float, context: Context) -> None:
        """Start a full new round."""
        if pending.generation != self._table.generation:
            course = self._policy.course(pending.query.profile, context.wall)
            if not isinstance(course, Course):
                self._refuse(pending, context, course)
                return
            pending.set_out(course, self._table.ids, self._table.generation)
            pending.memory = self._memory_of(course)
            if course.error is not None:
                self._refuse(pending, context, course.error)
                return
        pending.begin_again(now, self._freed_count)
        self._ask(pending, now, context)

    def _ask(self, pending: Pending, now: float, context: Context) -> None:
        entries = select(pending, self._policy, self._routing.fanout, self._plans, context.rng)
        if entries:
            self._fan_out(pending, entries, now, context)
        else:
            pending.asked = ()
            self._no_bids(pending, now, context)

    def _fan_out(self, pending: Pending, entries: tuple[Entry, ...], now: float, context: Context) -> None:
        pending.asked = entries
        self._rounds.begin(pending, entries, self._routing.decision_timeout_s, context)
        if not now <= self._alarm.due <= now + STALE_S:
            self._alarm.set(now + STALE_S, now, context)

    def _on_gathered(self, message: Gathered, context: Context) -> None:
        pending = self._rounds.home(message.key)
        if pending is None or pending.state is _DONE:
            return
        answers = message.answers
        pending.answers = pending.answers + answers if pending.answers else answers
        plans, waiting = self._plans, self._queue.waiting
        if pending.query.hedge:
            self._hedge(pending, context)
            return
        ask = self._asked  # One for all decisions: nobody keeps it.
        ask.profile = pending.query.profile
        if not waiting and pending.course.is_plain:
            ready = all_ready(pending, answers)
            if ready is not None:
                self._plan(pending, ranked_by(pending, ready, ask, context.rng), context)
                return
        held = self._queue.held_from(pending) if waiting and not pending.is_dry else _NOBODY
        found = offers(pending, plans, held)
        if pending.is_odd(answers):
            self._refuse(pending, context, RouteError.SELECTION_FAILED)
        elif found:
            self._plan(pending, rank(pending, found, ask, context.rng), context)
        elif batch := next_batch(pending, self._policy, self._routing.fanout):
            self._fan_out(pending, batch, context.now(), context)
        else:
            self._no_bids(pending, context.now(), context)

    def _plan(self, pending: Pending, ranked: Ranked, context: Context) -> None:
        strategy, now = pending.strategy, context.now()
        if pending.query.profile.affinity:
            ranked = self._affinity.settle(pending, ranked, self._routing.affinity, now)
        way, copy = ranked, None
        if not pending.is_dry:
            self._requests += not (pending.query.tried or pending.query.refused)
            if strategy.learn is not None:
                teach(pending, ranked)
            remember(pending, ranked)
            if now >= self._exploring.look_at:
                way, copy = self._exploring.choose(pending, ranked, bool(self._queue.waiting), self._requests, now)
            self._plans.open(pending, way[0][1].provider, now)
        pending.hedge_after_s = self._hedging.after_s(pending, way, self._asked.seconds_per_usd)
        decision_id = self._record.plan(pending, ranked, now, context)
        if pending.failure:
            self._record.strategy_errors += 1
            context.tell(_FAULTS, StrategyFailed(strategy.name, pending.failure))
        context.answer(pending.slot, plan_of(pending, decision_id, way, copy))
        self._finish(pending)

    def _hedge(self, pending: Pending, context: Context) -> None:
        """Answer the wish for a second call. It leaves no trace but a line in its request's record, and its open plan."""
        plans, is_queueing = self._plans, bool(self._queue.waiting)
        ranked = self._hedging.choose(pending, plans, is_queueing, self._requests, self._asked, context.rng)
        if isinstance(ranked, str):
            self._refuse(pending, context, RouteError.NO_HEDGE, note=ranked)
            return
        winner = ranked[0][1].provider
        self._plans.open(pending, winner, context.now())
        decision_id = self._record.hedge(pending.query, winner)
        pending.hedge_after_s = self._hedging.after_s(pending, ranked, self._asked.seconds_per_usd)
        context.answer(pending.slot, plan_of(pending, decision_id, ranked))
        self._finish(pending)

    # -- no bids: wait or say why

    def _no_bids(self, pending: Pending, now: float, context: Context) -> None:
        if pending.generation != self._table.generation:
            self._begin_again(pending, now, context)
            return
        if not pending.query.may_wait:
            self._refuse(pending, context)
            return
        if pending.refused_by() and self._record.pardon(pending.query.query_id):
            pending.is_full_round = True
            self._begin_again(pending, now, context)
            return
        providers = waits_on(pending, now)
        if not providers:
            self._refuse(pending, context)
            return
        loser = self._queue.crowded_out(pending, self._routing.queue_max_length)
        if loser is not None:
            self._refuse(loser, context, RouteError.QUEUE_FULL)
        if loser is not pending:
            self._wait(pending, providers, now, context)

    def _wait(self, pending: Pending, providers: tuple[str, ...], now: float, context: Context) -> None:
        self._queue.put(pending, providers, now)
        soonest = self._queue.hear_all(pending, max(self._routing.failover.backoff.base_s, PAUSE_S), now)
        pending.is_full_round = True
        self._unsettled.extend(providers)
        self._pass_on(pending)
        self._alarm.set(soonest, now, context)

    def _refuse(self, pending: Pending, context: Context, error: RouteError | None = None, note: str = "") -> None:
        wait_s = self._queue.wait_s(pending, context.now())
        context.answer(pending.slot, no_route(pending, self._record, context, error, note, wait_s))
        self._finish(pending)

    def _refuse_at_once(self, query: RouteQuery, context: Context, error: RouteError) -> None:
        strategy = query.profile.hints.strategy or self._routing.strategy
        context.reply(no_start(query, self._record, self._table, strategy, self._strategies, error, context))

    def _finish(self, pending: Pending) -> None:
        """The query is answered: it leaves the queue and passes its turn on. By its plan it is known until that is closed."""
        query_id = pending.query.query_id
        if pending.tally is None and query_id in self._open:
            del self._open[query_id]
        if pending.state is not _ASKING:
            self._queue.take_out(pending)
            self._pass_on(pending)
        pending.state = _DONE
        pending.slot = ANSWERED  # The record keeps the rest; whoever asked must not live as long.

    # -- turns

    def _pass_on(self, pending: Pending) -> None:
        provider = self._queue.end_turn(pending)
        if provider:
            self._unsettled.append(provider)

    def _on_claimed(self, message: Claimed, context: Context) -> None:
        self._close_plan(message.query_id)

    def _close_plan(self, query_id: str) -> None:
        provider = self._plans.close(query_id)
        if provider and self._queue.waiting:
            self._unsettled.append(provider)

    def _settle(self, context: Context) -> None:
        """Give a turn to every line that is owed nothing and has nothing under way. See the law of ``queue``."""
        while self._unsettled:
            provider = self._unsettled.pop()
            line = self._queue.lines.get(provider)
            if line is not None and not (line.owed or line.turns or provider in self._plans):
                self._give_turns(provider, 1, context)

    def _give_turns(self, provider: str, count: int, context: Context) -> None:
        """Run full new rounds for the next ``count`` idle queries in the line of ``provider``."""
        for _ in range(count):
            pending = self._queue.begin_turn(provider, context.now())
            if pending is None:
                return
            self._begin_again(pending, context.now(), context)

    def _on_freed(self, message: CapacityFreed, context: Context) -> None:
        provider = message.provider
        if provider not in self._table.by_id:
            return
        self._freed_count += 1
        self._queue.freed[provider] = self._freed_count
        line = self._queue.lines.get(provider)
        if line is not None:
            line.owed = False
            self._give_turns(provider, max(1, message.slots), context)

    def _on_withdraw(self, message: Withdraw, context: Context) -> None:
        self._close_plan(message.query_id)
        pending = self._open.get(message.query_id)
        if pending is not None:  # Not its plan: that was closed.
            self._refuse(pending, context, RouteError.AT_CAPACITY, note=WITHDRAWN)

    def _on_timer(self, message: Timer, context: Context) -> None:
        now = context.now()
        self._alarm.has_fired()
        self._unsettled.extend(self._plans.sweep(now))
        for pending in self._rounds.lost(now):
            self._refuse(pending, context, RouteError.SELECTION_FAILED)
        for pending in self._queue.expired(now):
            self._refuse(pending, context)
        for provider in self._queue.due(now):
            self._give_turns(provider, 1, context)
        self._settle(context)
        if self._queue.waiting:
            self._alarm.set(self._queue.next_due(), now, context)
        if self._open or len(self._rounds):
            self._alarm.set(now + STALE_S, now, context)

    # -- what became of it, configuration, statistics

    def _on_ended(self, message: CallEnded, context: Context) -> None:
        if message.query_id in self._open:
            self._close_plan(message.query_id)
        if message.kind is _EXPLORE:
            self._exploring.ended(message.provider, message.outcome is _SUCCESS)
        self._record.note_end(message)

    def _on_asked(self, message: Question, context: Context) -> None:
        context.reply(self._record.answer(message))

    def _on_get_stats(self, message: GetRouterStats, context: Context) -> None:
        context.reply(self._record.stats(len(self._queue.waiting)))

    def _adopt(self, snapshot: ConfigSnapshot) -> None:
        self._routing = routing = snapshot.routing
        self._table = RoutingTable.build(snapshot, self._plans.tally)
        self._policy = Policy(snapshot, self._table, self._strategies)
        self._record.keep_rules(self._policy.rule_names)
        self._hedging.adopt(routing.hedge, self._requests)
        self._exploring.adopt(routing, self._table.by_id, self._requests)
        self._asked = Ask(RequestProfile(""), routing.seconds_per_usd, routing.latency_quantile == "p95")

    def _on_configured(self, message: Configured, context: Context) -> None:
        """Swap the table; those who wait are asked for anew, in order."""
        snapshot = message.snapshot
        if snapshot.generation <= self._table.generation:
            return
        self._adopt(snapshot)
        self._record.shrink(snapshot.routing.decisions_kept)
        known = self._table.by_id
        self._queue.keep_only(known)
        self._memories.keep_only(known)
        self._plans.keep_only(known)
        for pending in self._queue.all():
            if pending.state is State.WAITING:
                self._queue.take_out(pending)
                pending.state = State.ASKING
                self._begin_again(pending, context.now(), context)


METHODS: dict[type, Callable[[RouterActor, Any, Context], None]] = {
    RouteQuery: RouterActor._on_query,
    Gathered: RouterActor._on_gathered,
    Claimed: RouterActor._on_claimed,
    CallEnded: RouterActor._on_ended,
    Withdraw: RouterActor._on_withdraw,
    CapacityFreed: RouterActor._on_freed,
    Timer: RouterActor._on_timer,
    Configured: RouterActor._on_configured,
    GetDecision: RouterActor._on_asked,
    RecentDecisions: RouterActor._on_asked,
    GetReasons: RouterActor._on_asked,
    GetRouterStats: RouterActor._on_get_stats,
}
"""What takes which message: one look-up where a match would try class after class."""
