"""What the router tells of itself: a record for each request, and the count and speed of its decisions.

Counted: in ``total`` every decision asked for, but for those that repeat one whose award was refused; in ``succeeded`` calls
upstream that ended well; in ``failed`` those that failed and decisions that found nobody. Dry runs are recorded, not
counted.
"""

from actors.kernel import Context
from actors.router.decision import ATTEMPTS_KEPT, DecisionLog, Kept
from actors.router.histogram import Histogram
from actors.router.pending import Pending, is_dry_run
from actors.router.strategies.base import Ranked
from actors.router.table import Route, RoutingTable
from messages.calls import CallEnded, Outcome
from messages.decisions import DecisionFound, Decisions, GetDecision, GetReasons, Reasons, RecentDecisions, RouterStats
from messages.routing import RouteQuery, request_of

Question = GetDecision | RecentDecisions | GetReasons
"""What is answered from the records alone."""
WITHDRAWN = "withdrawn"
"""In place of an error in the record of a request whose client left while it waited: nobody's failure."""
_SUCCESS, _FAILED, _NOT_SENT = Outcome.SUCCESS, Outcome.FAILED, Outcome.NOT_SENT
"""A global is read faster than a member of an enum."""
_TAILS = [f"{number:03}" for number in range(1000)]


class Recorder:
    """Keeps the records and the counts. ``seed`` is what the records name as the source of chance."""

    __slots__ = (
        "_durations", "_failed", "_head", "_hits", "_id_count", "_ids", "_log", "_seed", "_succeeded", "strategy_errors",
        "total",
    )  # fmt: skip

    def __init__(self, limit: int, seed: str) -> None:
        self._log = DecisionLog(limit)
        self._seed = seed
        self._durations = Histogram()
        self._succeeded = self._failed = self.total = self.strategy_errors = 0
        self._hits: dict[str, int] = {}
        self._ids = self._head = ""
        self._id_count = 0

    def plan(self, pending: Pending, ranked: Ranked, now: float, context: Context) -> str:
        """Record a plan; returns the decision's id."""
        query = pending.query
        kept = self._log.by_query.get(query.query_id)
        took_s = now - pending.began_at
        if kept is None:
            kept = Kept(self._new_id(context), query, context.wall(), 1, pending, took_s, ranked)
            self._log.add(kept)
        else:
            kept.at = context.wall()
            kept.round += 1
            kept.pending = pending
            kept.took_s = took_s
            kept.ranked = ranked
            kept.error = ""
        if not pending.is_dry:
            self._durations.add(took_s * 1e6)
        return kept.decision_id

    def refusal(self, pending: Pending, error: str, now: float, context: Context) -> str:
        """Record that there is no plan; returns the decision's id."""
        if pending.query.hedge:
            return self.hedge(pending.query, error)
        kept = self._of(pending.query, context)
        kept.pending, kept.ranked, kept.error = pending, None, error
        kept.took_s = took_s = now - pending.began_at
        if not pending.is_dry:
            self._durations.add(took_s * 1e6)
            self._failed += error != WITHDRAWN
        return kept.decision_id

    def no_start(
        self, query: RouteQuery, strategy: str, table: RoutingTable, route: Route | None, error: str, context: Context
    ) -> str:
        """Record a query of which nothing could be made: no ``route``, or no such strategy. Returns the decision's id."""
        if query.hedge:
            return self.hedge(query, error)
        kept = self._of(query, context)
        kept.known, kept.route = table.ids, route
        kept.pending, kept.strategy, kept.generation = None, strategy, table.generation
        kept.ranked, kept.error = None, error
        if not is_dry_run(query):
            self._failed += 1
        return kept.decision_id

    def hedge(self, query: RouteQuery, answer: str) -> str:
        """Add to the record of a request what was said to its wish for a second call; returns the decision's id."""
        kept = self._log.by_query.get(request_of(query.query_id))
        if kept is None:
            return ""
        if len(kept.hedges) < ATTEMPTS_KEPT:
            kept.hedges += (answer,)
        return kept.decision_id

    def _of(self, query: RouteQuery, context: Context) -> Kept:
        """The record of the request; one more round is told of it."""
        query_id = query.query_id
        kept = self._log.by_query.get(query_id)
        if kept is None:
            kept = Kept(self._new_id(context), query)
            self._log.add(kept)
        kept.at = context.wall()
        kept.round += 1
        return kept

    def pardon(self, query_id: str) -> bool:
        """Whether all have refused a query for the first time: then they are asked again at once, else after a back-off.

        Those that are full will say so by ``NoBid``, and then owe their ``CapacityFreed``.
        """
        kept = self._log.by_query.get(query_id)
        if kept is None or kept.pardons:
            return False
        kept.pardons += 1
        return True

    def has_failed(self, query_id: str, provider: str) -> bool:
        """Whether a call of the request has failed at ``provider``, as far as is known."""
        kept = self._log.by_query.get(query_id)
        return kept is not None and any(end.provider == provider and end.outcome is _FAILED for _, end in kept.attempts)

    def note_end(self, ended: CallEnded) -> None:
        """Count a call upstream and add it to its request's record; one that was never sent is none."""
        outcome = ended.outcome
        if outcome is _SUCCESS:
            self._succeeded += 1
        elif outcome is _FAILED:
            self._failed += 1
        elif outcome is _NOT_SENT:
            return
        self._log.note_attempt(ended)

    def answer(self, question: Question) -> DecisionFound | Decisions | Reasons:
        """The record with an id, the newest records, newest first, or why candidates of a request were not called."""
        if isinstance(question, RecentDecisions):
            return Decisions(tuple(kept.message(self._seed) for kept in self._log.recent(question.limit)))
        if isinstance(question, GetReasons):
            asked = self._log.by_query.get(question.query_id)
            return Reasons(()) if asked is None else asked.reasons()
        kept = self._log.find(question.decision_id)
        return DecisionFound(None if kept is None else kept.message(self._seed))

    def stats(self, waiting: int) -> RouterStats:
        """The counts, and how long decisions took (from the query, or its turn, to the answer)."""
        p50, p95, p99 = (self._durations.quantile(share) for share in (0.5, 0.95, 0.99))
        hits = tuple(sorted(self._hits.items()))
        return RouterStats(self.total, self._succeeded, self._failed, p50, p95, p99, waiting, hits, self.strategy_errors)

    def hit(self, rules: tuple[str, ...]) -> None:
        """Count a match for each of the rules."""
        for rule in rules:
            self._hits[rule] += 1

    def keep_rules(self, names: tuple[str, ...]) -> None:
        """Count these rules from now on; counts of those that stay go on."""
        self._hits = {name: self._hits.get(name, 0) for name in names}

    def shrink(self, limit: int) -> None:
        """Keep no more than ``limit`` records from now on."""
        self._log.shrink(limit)

    def fault(self) -> str | None:
        """None while the records hold together."""
        return self._log.fault()

    def _new_id(self, context: Context) -> str:
        """An id for a record: chance tells this router from others and from those before it, a count its records."""
        if not self._ids:
            self._ids = self._head = f"dec-{context.rng.getrandbits(48):012x}-"
        self._id_count = count = self._id_count + 1
        tail = count % 1000
        if not tail:
            self._head = self._ids + str(count // 1000)
        # A thousand in a row differ in three digits only, which need not be written each time.
        return self._head + (_TAILS[tail] if count >= 1000 else str(count))
