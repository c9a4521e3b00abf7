"""What the router tells of itself: a record for each request, and the count and speed of its decisions.

Counted: in ``total`` every decision asked for, but for those that repeat one whose award was refused; in ``succeeded`` calls
upstream that ended well; in ``failed`` those that failed and decisions that found nobody. Dry runs are recorded, not
counted.
"""

from actors.kernel import Context
from actors.router.decision import DecisionLog, Kept
from actors.router.histogram import Histogram
from actors.router.pending import Pending, is_dry_run
from actors.router.strategies.base import Ranked
from messages.calls import CallEnded, Outcome
from messages.routing import Choice, DecisionFound, Decisions, RouteQuery, RouterStats

WITHDRAWN = "withdrawn"
"""In place of an error in the record of a request whose client left while it waited: nobody's failure."""


class Recorder:
    """Keeps the records and the counts. ``seed`` is what the records name as the source of chance."""

    __slots__ = ("_durations", "_failed", "_log", "_seed", "_succeeded", "total")

    def __init__(self, limit: int, seed: str) -> None:
        self._log = DecisionLog(limit)
        self._seed = seed
        self._durations = Histogram()
        self._succeeded = self._failed = self.total = 0

    def plan(self, pending: Pending, ranked: Ranked, choices: tuple[Choice, ...], now: float, context: Context) -> Kept:
        """Record a plan."""
        kept = self._round(pending, now, context)
        kept.ranked, kept.chosen, kept.error = ranked, choices, ""
        return kept

    def refusal(self, pending: Pending, error: str, now: float, context: Context) -> Kept:
        """Record that there is no plan."""
        kept = self._round(pending, now, context)
        kept.ranked, kept.chosen, kept.error = None, (), error
        if not pending.is_dry and error != WITHDRAWN:
            self._failed += 1
        return kept

    def no_start(self, query: RouteQuery, strategy: str, generation: int, error: str, context: Context) -> Kept:
        """Record a query of which nothing could be made: its model or strategy does not exist."""
        kept = self._of(query, context)
        kept.pending, kept.strategy, kept.generation = None, strategy, generation
        kept.ranked, kept.chosen, kept.error = None, (), error
        if not is_dry_run(query):
            self._failed += 1
        return kept

    def _round(self, pending: Pending, now: float, context: Context) -> Kept:
        kept = self._of(pending.query, context)
        kept.pending = pending
        kept.generation, kept.strategy = pending.generation, pending.strategy.name
        kept.selection_us = (now - pending.began_at) * 1e6
        if not pending.is_dry:
            self._durations.add(kept.selection_us)
        return kept

    def _of(self, query: RouteQuery, context: Context) -> Kept:
        """The record of the request; one more round is told of it."""
        kept = self._log.of_query(query.query_id)
        if kept is None:
            kept = Kept(f"dec-{context.rng.getrandbits(64):016x}", query.query_id, query.profile.model)
            self._log.add(kept)
        kept.at = context.wall()
        kept.round += 1
        return kept

    def pardon(self, query_id: str) -> bool:
        """Whether all have refused a query for the first time: then they are asked again at once, else after a back-off.

        Those that are full will say so by ``NoBid``, and then owe their ``CapacityFreed``.
        """
        kept = self._log.of_query(query_id)
        if kept is None or kept.pardons:
            return False
        kept.pardons += 1
        return True

    def note_end(self, ended: CallEnded) -> None:
        """Count a call upstream and add it to its request's record; one that was never sent is none."""
        if ended.outcome == Outcome.NOT_SENT:
            return
        self._log.note_attempt(ended)
        if ended.outcome == Outcome.SUCCESS:
            self._succeeded += 1
        elif ended.outcome == Outcome.FAILED:
            self._failed += 1

    def find(self, decision_id: str) -> DecisionFound:
        """The record with that id."""
        kept = self._log.find(decision_id)
        return DecisionFound(None if kept is None else kept.message(self._seed))

    def recent(self, count: int) -> Decisions:
        """The newest records, newest first."""
        return Decisions(tuple(kept.message(self._seed) for kept in self._log.recent(count)))

    def stats(self, waiting: int) -> RouterStats:
        """The counts, and how long decisions took (from the query, or its turn, to the answer)."""
        p50, p95, p99 = (self._durations.quantile(share) for share in (0.5, 0.95, 0.99))
        return RouterStats(self.total, self._succeeded, self._failed, p50, p95, p99, waiting)

    def shrink(self, limit: int) -> None:
        """Keep no more than ``limit`` records from now on."""
        self._log.shrink(limit)

    def fault(self) -> str | None:
        """None while the records hold together."""
        return self._log.fault()
