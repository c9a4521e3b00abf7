"""Decision records: the raw material of each decision, kept in bounded number, made into a message when somebody asks.

Owns: one ``Kept`` for each request (its last round, all its attempts), and the index of them by query.
Always: no more than ``limit`` of them; making one costs no more than noting what was at hand.
"""

from collections import deque
from dataclasses import dataclass

from actors.router.pending import Pending
from actors.router.strategies.base import Ranked
from messages.calls import CallEnded
from messages.decisions import AttemptRecord, Candidate, Decision
from messages.routing import Bid, Exclusion, NoBid, RouteQuery

CHOICES_MAX = 8
"""Winner and fall-back chain of a plan."""
ATTEMPTS_KEPT = 64
"""Attempts of one request in its record; ``max_attempts`` is far below."""


@dataclass(slots=True, eq=False)
class Kept:
    """What a record is made of: nothing but references to what the decision had at hand."""

    decision_id: str
    query: RouteQuery
    """The first of the request."""
    at: float = 0.0
    """Unix seconds of the last round's answer."""
    round: int = 0
    pending: Pending | None = None
    """The last round; None: there was nobody to ask."""
    took_s: float = 0.0
    """From the last round's start to its answer."""
    ranked: Ranked | None = None
    error: str = ""
    generation: int = 0
    """This and ``strategy`` where there is no ``pending`` to tell."""
    strategy: str = ""
    attempts: tuple[tuple[int, CallEnded], ...] = ()
    """Calls upstream, each with the round that led to it."""
    pardons: int = 0
    """Times that all its refusals were forgotten at once."""

    def message(self, seed: str) -> Decision:
        """The record for people. Costs some µs for each candidate, so only when asked."""
        pending, ranked = self.pending, self.ranked or []
        return Decision(
            decision_id=self.decision_id,
            query_id=self.query.query_id,
            at=self.at,
            generation=pending.generation if pending is not None else self.generation,
            requested_model=self.query.profile.model,
            model=pending.route.model if pending is not None else "",
            strategy=pending.strategy.name if pending is not None else self.strategy,
            rule="",
            seed=seed,
            candidates=_candidates(pending, ranked) if pending is not None else (),
            chosen=tuple(bid.provider for _, bid in ranked[:CHOICES_MAX]),
            error=self.error,
            selection_us=self.took_s * 1e6,
            round=self.round,
            attempts=tuple(_attempt(number, ended) for number, ended in self.attempts),
            not_asked=len(pending.rest) if pending is not None else 0,
        )


class DecisionLog:
    """The last ``limit`` records."""

    __slots__ = ("_order", "by_query", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._order: deque[Kept] = deque()
        self.by_query: dict[str, Kept] = {}
        """To be looked at, not changed."""

    def __len__(self) -> int:
        return len(self._order)

    def find(self, decision_id: str) -> Kept | None:
        """The record with that id, if it is kept. Looks through them all: an index would cost every request, for rare use."""
        return next((kept for kept in reversed(self._order) if kept.decision_id == decision_id), None)

    def add(self, kept: Kept) -> None:
        """Keep the first record of its query; the oldest record goes when there are too many."""
        order = self._order
        order.append(kept)
        self.by_query[kept.query.query_id] = kept
        if len(order) > self.limit:
            del self.by_query[order.popleft().query.query_id]

    def shrink(self, limit: int) -> None:
        """Keep no more than ``limit`` from now on."""
        self.limit = limit
        while len(self._order) > limit:
            del self.by_query[self._order.popleft().query.query_id]

    def recent(self, count: int) -> list[Kept]:
        """The newest ``count`` records, newest first."""
        return [self._order[-1 - position] for position in range(max(0, min(count, len(self._order))))]

    def note_attempt(self, ended: CallEnded) -> None:
        """Add a call upstream to the record of its request, if that is kept."""
        kept = self.by_query.get(ended.query_id)
        if kept is not None and len(kept.attempts) < ATTEMPTS_KEPT:
            kept.attempts += ((kept.round, ended),)

    def fault(self) -> str | None:
        """None while the indexes and the order tell the same."""
        if not len(self._order) == len(self.by_query) <= max(0, self.limit):
            return f"{len(self._order)} decisions in order, {len(self.by_query)} by query, limit {self.limit}"
        return None


def _attempt(number: int, ended: CallEnded) -> AttemptRecord:
    first_s = ended.first_content_s
    return AttemptRecord(
        provider=ended.provider,
        outcome=ended.outcome,
        code=ended.failure.code if ended.failure is not None else "",
        status=ended.status,
        duration_ms=ended.duration_s * 1e3,
        first_content_ms=None if first_s is None else first_s * 1e3,
        round=number,
    )


def _candidates(pending: Pending, ranked: Ranked) -> tuple[Candidate, ...]:
    """Everybody considered: in the order of definition, then those whom the name pins out, then those not asked."""
    scores = {bid.provider: score for score, bid in ranked}
    left_out = {left.provider: left for left in pending.left_out}
    waiting = {entry.id for entry in pending.rest}
    names = [entry.id for entry in pending.route.entries]
    names.extend(name for name in pending.route.pinned_out if name not in names)
    answers, barred = pending.by_provider(), dict(pending.barred)
    found: list[Candidate] = []
    for name in names:
        answer = answers.get(name)
        if isinstance(answer, Bid):
            found.append(_of_bid(answer, scores.get(name), barred.get(name)))
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
