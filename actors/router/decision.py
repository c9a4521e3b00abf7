"""Decision records: the raw material of each decision, kept in bounded number, made into a message when somebody asks.

Owns: one ``Kept`` for each request (its last round, all its attempts), and the index of them by query.
Always: no more than ``limit`` of them; making one costs no more than noting what was at hand. Under load those of requests
that went well at once are the first to go.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

from actors.router.pending import Pending
from actors.router.strategies.base import Ranked
from actors.router.table import Route
from actors.router.verdict import LATE, NAMED_MAX, NOT_CALLED
from messages.base import acyclic
from messages.calls import CallEnded, Outcome
from messages.decisions import AttemptRecord, Candidate, Decision, Reasons
from messages.routing import Bid, Exclusion, LeftOut, NoBid, NoBidReason, RouteQuery

LISTED_MAX = 64
"""Candidates listed one by one; of the others a record tells how many there are for each reason."""
CHOICES_MAX = 8
"""Winner and fall-back chain of a plan."""
ATTEMPTS_KEPT = 64
"""Attempts of one request in its record; ``max_attempts`` is far below."""
NEWEST = 32
"""So many records are kept whatever they tell: with sixteen candidates they take 300 kB, which a cache can hold."""
PLAIN_PER_S = 100.0
"""Of older ones that tell of one good call and nothing else so many are kept for each second."""
_SUCCESS = Outcome.SUCCESS
"""A global is read faster than a member of an enum."""


@acyclic
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
    first_end: CallEnded | None = None
    first_round: int = 0
    """The first call upstream that came to its end, and the round that led to it: mostly there is no other."""
    later_ends: tuple[tuple[int, CallEnded], ...] = ()
    known: tuple[str, ...] = ()
    """All providers there were, where there is no ``pending`` to tell."""
    route: Route | None = None
    """What the model leads to, where it is the strategy that does not exist."""
    pardons: int = 0
    """Times that all its refusals were forgotten at once."""
    hedges: tuple[str, ...] = ()
    """What was said to each wish for a second call."""

    @property
    def attempts(self) -> tuple[tuple[int, CallEnded], ...]:
        """Calls upstream, each with the round that led to it."""
        return () if self.first_end is None else ((self.first_round, self.first_end), *self.later_ends)

    @property
    def is_under_way(self) -> bool:
        """Whether there was a plan, and nothing is known of a call yet."""
        return self.first_end is None and not self.error

    @property
    def is_plain(self) -> bool:
        """Whether the first decision led to the only call, which went well."""
        end = self.first_end
        return end is not None and end.outcome is _SUCCESS and self.round == 1 and not (self.later_ends or self.hedges)

    def message(self, seed: str) -> Decision:
        """The record for people. Costs some µs for each candidate, so only when asked."""
        pending, ranked = self.pending, self.ranked or []
        profile = self.query.profile
        found = _candidates(pending, ranked) if pending is not None else [_not_begun(name, self.route) for name in self.known]
        listed, rest = _bounded(found)
        course = pending.course if pending is not None else None
        return Decision(
            decision_id=self.decision_id,
            query_id=self.query.query_id,
            at=self.at,
            generation=pending.generation if pending is not None else self.generation,
            requested_model=profile.model,
            model=pending.route.model if pending is not None else self.route.model if self.route is not None else "",
            strategy=pending.strategy.name if pending is not None else self.strategy,
            rule=course.rule if course is not None else "",
            seed=seed,
            candidates=listed,
            chosen=tuple(bid.provider for _, bid in ranked[:CHOICES_MAX]),
            error=self.error,
            selection_us=self.took_s * 1e6,
            round=self.round,
            attempts=tuple(_attempt(number, ended) for number, ended in self.attempts),
            not_asked=max(0, len(pending.kept) - pending.seen) if pending is not None else 0,
            rest=rest,
            profile=profile,
            priority=course.priority if course is not None else profile.hints.priority,
            note=_note(pending) if pending is not None else "",
            hedge_after_ms=None if pending is None or pending.hedge_after_s is None else pending.hedge_after_s * 1e3,
            explored=pending.explored if pending is not None else "",
            hedges=self.hedges,
        )

    def reasons(self) -> Reasons:
        """Why the candidates of the last round were not called, as far as the router knows. Costs what it names."""
        pending = self.pending
        if pending is None:
            return Reasons(())
        last = {ended.provider: ended for _, ended in self.attempts}
        late = [name for name, ended in last.items() if ended.outcome is not Outcome.FAILED]
        found = [LeftOut(name, LATE) for name in late]
        found += [LeftOut(bid.provider, NOT_CALLED) for _, bid in self.ranked or () if bid.provider not in late]
        found += [left for left in pending.by_first_stage(pending.reasons()) if left.provider not in late]
        told = {left.provider for left in found}
        others = [entry.id for entry in pending.route.entries if entry.id not in told]
        room = max(0, NAMED_MAX - len(found))
        named = (*found, *pending.by_first_stage([LeftOut(name, Exclusion.NOT_SAMPLED) for name in others[:room]]))
        return Reasons(named[:NAMED_MAX], len(found) + len(others) - min(len(named), NAMED_MAX))


class DecisionLog:
    """No more than ``limit`` records: the newest, and of those before them the last that are worth it.

    A gateway under load makes thousands of decisions in a second, nearly all alike. If each were kept until a thousand others
    have come, the few that tell of a failure would be gone within a blink; and each would be written to memory that is in no
    cache any more (a tenth of a request's time with three candidates, a third with sixteen). So older records that tell of one
    good call and nothing else are kept up to ``PLAIN_PER_S``, or while a burst has filled no more places than there are. Of
    these places a third belongs to them, a third to requests under way and a third to all others, and to each what the rest
    does not need.
    """

    __slots__ = ("_newest", "_next", "_others", "_places", "_plain", "_plain_until", "_under_way", "by_query", "limit")

    def __init__(self, limit: int) -> None:
        self.by_query: dict[str, Kept] = {}
        """Oldest first. To be looked at, not changed."""
        self._plain_until = 0.0
        """When the rate would have brought all plain ones that were kept (monotonic s)."""
        self._lay_out(limit)

    def _lay_out(self, limit: int) -> None:
        self.limit = limit
        self._newest: list[Kept] = []
        self._next = 0
        """The place of the oldest of ``_newest``; 0 while that is not full."""
        self._places = max(0, limit - NEWEST)
        """For older records, which are in one of these, oldest first."""
        self._plain, self._others = deque[Kept](), deque[Kept]()
        self._under_way = OrderedDict[str, Kept]()

    def __len__(self) -> int:
        return len(self.by_query)

    def find(self, decision_id: str) -> Kept | None:
        """The record with that id, if it is kept. Looks through them all: an index would cost every request, for rare use."""
        return next((kept for kept in self.by_query.values() if kept.decision_id == decision_id), None)

    def add(self, kept: Kept) -> None:
        """Keep the first record of its query; another goes when there are too many."""
        newest, place = self._newest, self._next
        if len(newest) < min(self.limit, NEWEST):
            newest.append(kept)
        elif not newest:
            return
        else:
            leaving = newest[place]
            newest[place] = kept
            place += 1
            self._next = place if place < len(newest) else 0
            self._grow_old(leaving)
        self.by_query[kept.query.query_id] = kept

    def _grow_old(self, kept: Kept) -> None:
        """Find a place for a record that is not among the newest any more, or forget it."""
        query_id, places = kept.query.query_id, self._places
        if not places or (kept.is_plain and self._is_too_much(kept)):
            del self.by_query[query_id]
            return
        plain, under_way, others = self._plain, self._under_way, self._others
        if kept.is_plain:
            plain.append(kept)
        elif kept.is_under_way:
            under_way[query_id] = kept
        else:
            others.append(kept)
        if len(plain) + len(under_way) + len(others) <= places:
            return
        if len(plain) > places // 3:
            gone = plain.popleft()
        elif len(under_way) > places // 3:
            gone = under_way.popitem(last=False)[1]
        else:
            gone = others.popleft()
        del self.by_query[gone.query.query_id]

    def _is_too_much(self, kept: Kept) -> bool:
        """Whether plain records come faster than they are kept, after a burst as large as there are places (GCRA)."""
        until, at = self._plain_until, 0.0 if kept.pending is None else kept.pending.began_at
        if until - at >= self._places / PLAIN_PER_S:
            return True
        self._plain_until = (until if until > at else at) + 1.0 / PLAIN_PER_S
        return False

    def shrink(self, limit: int) -> None:
        """Keep no more than ``limit`` from now on."""
        kept = self.recent(limit)
        self._lay_out(limit)
        self._newest = kept[NEWEST - 1 :: -1] if len(kept) >= NEWEST else kept[::-1]
        for one in reversed(kept[NEWEST:]):
            if one.is_under_way:
                self._under_way[one.query.query_id] = one
            else:
                (self._plain if one.is_plain else self._others).append(one)
        self.by_query = {one.query.query_id: one for one in reversed(kept)}

    def recent(self, count: int) -> list[Kept]:
        """The newest ``count`` records, newest first."""
        return list(self.by_query.values())[::-1][: max(0, count)]

    def note_attempt(self, ended: CallEnded) -> None:
        """Add a call upstream to the record of its request, if that is kept."""
        kept = self.by_query.get(ended.query_id)
        if kept is None:
            return
        if kept.first_end is None:
            kept.first_end, kept.first_round = ended, kept.round
            if self._under_way and self._under_way.pop(ended.query_id, None) is not None:
                self._grow_old(kept)
        elif 1 + len(kept.later_ends) < ATTEMPTS_KEPT:
            kept.later_ends += ((kept.round, ended),)

    def fault(self) -> str | None:
        """None while the index and the places tell the same."""
        newest, older = len(self._newest), len(self._plain) + len(self._under_way) + len(self._others)
        if not newest + older == len(self.by_query) <= max(0, self.limit):
            return f"{newest} new decisions, {older} older, {len(self.by_query)} by query, limit {self.limit}"
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
        kind=ended.kind,
    )


def _note(pending: Pending) -> str:
    failure = pending.failure
    notes = (
        pending.course.note,
        pending.remark,
        f"{pending.strategy.name} failed ({failure}): first stood in" if failure else "",
    )
    return "; ".join(note for note in notes if note)


def _candidates(pending: Pending, ranked: Ranked) -> list[Candidate]:
    """Everybody there is: in the order of definition, those who do not serve the model too."""
    scores = {bid.provider: score for score, bid in ranked}
    left_out = {left.provider: left for left in pending.left_out} or pending.course.barred
    waiting, asked = {entry.id for entry in pending.kept}, {entry.id for entry in pending.asked}
    answers = pending.by_provider()
    barred = {provider: (reason, detail) for provider, reason, detail in pending.barred}
    found: list[Candidate] = []
    for name in pending.known:
        answer, detail = answers.get(name), ""
        if isinstance(answer, Bid):
            found.append(_of_bid(answer, scores.get(name), barred.get(name), name in pending.course.outside))
            continue
        if isinstance(answer, NoBid):
            reason, detail = str(answer.reason), answer.detail
        elif name in left_out:
            reason, detail = left_out[name].reason, left_out[name].detail
        elif name in asked:
            # The client left, or the round was lost, before the answers came home.
            reason, detail = NoBidReason.TIMEOUT, "had not answered yet"
        elif name in waiting:
            reason = Exclusion.NOT_SAMPLED
        else:
            reason = Exclusion.PIN if name in pending.route.pinned_out else Exclusion.MODEL
        if (why := pending.lacking(name, reason)) is not None:
            reason, detail = why
        found.append(_out(name, reason, detail))
    return found


def _bounded(found: list[Candidate]) -> tuple[tuple[Candidate, ...], tuple[tuple[str, int], ...]]:
    """The candidates to list, those who bid or answered before those who were not even asked, and counts of the rest."""
    if len(found) <= LISTED_MAX:
        return tuple(found), ()
    places = sorted(range(len(found)), key=lambda place: (found[place].reason in _NOT_ASKED, place))
    listed = frozenset(places[:LISTED_MAX])
    counts: dict[str, int] = {}
    for place in places[LISTED_MAX:]:
        reason = str(found[place].reason)
        counts[reason] = counts.get(reason, 0) + 1
    return tuple(one for place, one in enumerate(found) if place in listed), tuple(sorted(counts.items()))


def _of_bid(bid: Bid, score: float | None, barred: tuple[Exclusion, str] | None, is_outside: bool) -> Candidate:
    if barred is not None:
        return Candidate(bid.provider, None, barred[0], barred[1], bid, stage_of(barred[0]))
    notes = ("not named by the rule" if is_outside else "", "" if bid.healthy else "second tier: unhealthy")
    return Candidate(bid.provider, score, "", "; ".join(note for note in notes if note), bid)


def _out(name: str, reason: str, detail: str = "") -> Candidate:
    return Candidate(name, None, reason, detail, None, stage_of(reason))


def _without_model(name: str) -> Candidate:
    return _out(name, Exclusion.MODEL)


def _not_begun(name: str, route: Route | None) -> Candidate:
    """Who was left out of a decision of which nothing could be made: for want of the model, or of the strategy."""
    if route is not None and name in route.places:
        return _out(name, Exclusion.NO_STRATEGY)
    return _out(name, Exclusion.PIN) if route is not None and name in route.pinned_out else _without_model(name)


def stage_of(reason: str) -> str:
    """The stage of a decision that leaves somebody out for ``reason``."""
    return _STAGES.get(reason, "health")


_NOT_ASKED = {Exclusion.MODEL, Exclusion.PIN, Exclusion.NOT_SAMPLED, Exclusion.NO_STRATEGY}
_STAGES: dict[str, str] = {
    Exclusion.MODEL: "candidates",
    Exclusion.PIN: "candidates",
    Exclusion.TRIED: "exclusions",
    Exclusion.REFUSED: "exclusions",
    Exclusion.EXCLUDED: "exclusions",
    Exclusion.TAGS: "exclusions",
    NoBidReason.CONTEXT_TOO_LONG: "requirements",
    NoBidReason.MISSING_CAPABILITY: "requirements",
    NoBidReason.MODEL_UNAVAILABLE: "requirements",
    Exclusion.TENANT: "tenant",
    Exclusion.LABELS: "pool",
    Exclusion.CHAIN: "pool",
    Exclusion.RULE: "rules",
    NoBidReason.AT_CAPACITY: "limits",
    NoBidReason.RATE_LIMITED: "limits",
    Exclusion.MAX_COST: "ceilings",
    Exclusion.MAX_LATENCY: "ceilings",
    Exclusion.THROUGHPUT: "ceilings",
    Exclusion.WAITERS_AHEAD: "queue",
    Exclusion.LIMIT_AHEAD: "limits",
    Exclusion.NOT_SAMPLED: "fan-out",
    Exclusion.WEIGHT_ZERO: "strategy",
    Exclusion.NO_STRATEGY: "strategy",
}
"""Where it is not ``health``, which has most."""
