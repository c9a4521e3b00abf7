"""Decision records: the raw material of each decision, kept in bounded number, made into a message when somebody asks.

Owns: one ``Kept`` for each request (its last round, all its attempts), and the index of them by query and by id.
Always: no more than ``limit`` of them; making one costs no more than noting what was at hand.
"""

from collections import deque
from dataclasses import dataclass

from actors.router.pending import Pending
from actors.router.strategies.base import Ranked
from messages.calls import CallEnded
from messages.routing import AttemptRecord, Bid, Candidate, Choice, Decision, Exclusion, NoBid

ATTEMPTS_KEPT = 64
"""Attempts of one request in its record; ``max_attempts`` is far below."""


@dataclass(slots=True, eq=False)
class Kept:
    """What a record is made of."""

    decision_id: str
    query_id: str
    requested_model: str
    at: float = 0.0
    """Unix seconds of the last round's answer."""
    round: int = 0
    pending: Pending | None = None
    """The last round; None: there was nobody to ask."""
    generation: int = 0
    strategy: str = ""
    ranked: Ranked | None = None
    chosen: tuple[Choice, ...] = ()
    error: str = ""
    selection_us: float = 0.0
    attempts: tuple[AttemptRecord, ...] = ()
    pardons: int = 0
    """Times that all its refusals were forgotten at once."""

    def message(self, seed: str) -> Decision:
        """The record for people. Costs some µs for each candidate, so only when asked."""
        pending = self.pending
        return Decision(
            decision_id=self.decision_id,
            query_id=self.query_id,
            at=self.at,
            generation=self.generation,
            requested_model=self.requested_model,
            model=pending.route.model if pending is not None else "",
            strategy=self.strategy,
            rule="",
            seed=seed,
            candidates=_candidates(pending, self.ranked or []) if pending is not None else (),
            chosen=tuple(choice.provider for choice in self.chosen),
            error=self.error,
            selection_us=self.selection_us,
            round=self.round,
            attempts=self.attempts,
            not_asked=len(pending.rest) if pending is not None else 0,
        )


class DecisionLog:
    """The last ``limit`` records."""

    __slots__ = ("_by_id", "_by_query", "_order", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._order: deque[Kept] = deque()
        self._by_id: dict[str, Kept] = {}
        self._by_query: dict[str, Kept] = {}

    def __len__(self) -> int:
        return len(self._order)

    def of_query(self, query_id: str) -> Kept | None:
        """The record of a request, if it is kept."""
        return self._by_query.get(query_id)

    def find(self, decision_id: str) -> Kept | None:
        """The record with that id, if it is kept."""
        return self._by_id.get(decision_id)

    def add(self, kept: Kept) -> None:
        """Keep a new record; the oldest goes when there are too many."""
        self._order.append(kept)
        self._by_id[kept.decision_id] = kept
        self._by_query[kept.query_id] = kept
        if len(self._order) > self.limit:
            self.shrink(self.limit)

    def shrink(self, limit: int) -> None:
        """Keep no more than ``limit`` from now on."""
        self.limit = limit
        while len(self._order) > limit:
            oldest = self._order.popleft()
            del self._by_id[oldest.decision_id]
            if self._by_query.get(oldest.query_id) is oldest:
                del self._by_query[oldest.query_id]

    def recent(self, count: int) -> list[Kept]:
        """The newest ``count`` records, newest first."""
        return [self._order[-1 - position] for position in range(max(0, min(count, len(self._order))))]

    def note_attempt(self, ended: CallEnded) -> None:
        """Add a call upstream to the record of its request, if that is kept."""
        kept = self._by_query.get(ended.query_id)
        if kept is None or len(kept.attempts) >= ATTEMPTS_KEPT:
            return
        first = ended.first_content_s
        kept.attempts += (
            AttemptRecord(
                provider=ended.provider,
                outcome=ended.outcome,
                code=ended.failure.code if ended.failure is not None else "",
                status=ended.status,
                duration_ms=ended.duration_s * 1e3,
                first_content_ms=None if first is None else first * 1e3,
                round=kept.round,
            ),
        )

    def fault(self) -> str | None:
        """None while the indexes and the order tell the same."""
        if not len(self._order) == len(self._by_id) <= max(0, self.limit):
            return f"{len(self._order)} decisions in order, {len(self._by_id)} by id, limit {self.limit}"
        return None


def _candidates(pending: Pending, ranked: Ranked) -> tuple[Candidate, ...]:
    """Everybody considered: in the order of definition, then those whom the name pins out, then those not asked."""
    scores = {bid.provider: score for score, bid in ranked}
    left_out = {left.provider: left for left in pending.left_out}
    waiting = {entry.id for entry in pending.rest}
    names = [entry.id for entry in pending.route.entries]
    names.extend(name for name in pending.route.pinned_out if name not in names)
    found: list[Candidate] = []
    for name in names:
        answer = pending.answers.get(name)
        if isinstance(answer, Bid):
            found.append(_of_bid(answer, scores.get(name), pending.barred.get(name)))
        elif isinstance(answer, NoBid):
            found.append(Candidate(name, None, answer.reason, answer.detail, None))
        elif name in left_out:
            found.append(Candidate(name, None, left_out[name].reason, left_out[name].detail, None))
        elif name in waiting:
            found.append(Candidate(name, None, Exclusion.NOT_SAMPLED, "", None))
    return tuple(found)


def _of_bid(bid: Bid, score: float | None, barred: Exclusion | None) -> Candidate:
    if barred is not None:
        return Candidate(bid.provider, None, barred, "", bid)
    return Candidate(bid.provider, score, "", "" if bid.healthy else "second tier: unhealthy", bid)
