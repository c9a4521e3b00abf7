"""A query on its way through the router: from its first round until it is answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from actors.kernel import ReplySlot
from actors.requirements import lacking
from actors.router.policy import Course
from actors.router.strategies.base import Memory, Strategy
from actors.router.table import Entry, Route
from actors.router.tally import Tally
from messages.base import acyclic
from messages.policy import NORMAL
from messages.routing import CRASHES_MAX, Bid, Exclusion, LeftOut, NoBid, NoBidReason, RouteQuery

_DRY_RUN = "explain-"

HEAD_START_S = 5.0
"""A step of priority counts as so much earlier an arrival: who is more urgent overtakes those who came up to so much before,
and nobody is starved, for those who wait grow older (ageing)."""
HEAD_START_SHARE = 1 / 6
"""Of the longest wait, no step counts for more: low overtakes even critical before its time is half over."""


def head_start_s(priority: int, wait_max_s: float) -> float:
    """How much earlier a request of that priority counts as having come, where nobody waits longer than ``wait_max_s``."""
    return (priority - NORMAL) * min(HEAD_START_S, HEAD_START_SHARE * wait_max_s)


def is_dry_run(query: RouteQuery) -> bool:
    """Whether a query is only decided and recorded: its id begins with ``explain-`` and it may not wait."""
    return not query.may_wait and query.query_id.startswith(_DRY_RUN)


REQUIREMENTS = {NoBidReason.CONTEXT_TOO_LONG, NoBidReason.MISSING_CAPABILITY, NoBidReason.MODEL_UNAVAILABLE}
"""What a candidate does not have: the stage between the request's own exclusions and tenant, pool and rules."""
SAID_BEFORE = {
    Exclusion.MODEL, Exclusion.PIN, Exclusion.TRIED, Exclusion.REFUSED, Exclusion.EXCLUDED, Exclusion.TAGS,
}  # fmt: skip
"""Reasons of the stages before it."""


class State(Enum):
    """Where a query stands.

    ASKING → WAITING ⇄ TURN, and from each of them → DONE.
    """

    ASKING = "asking"
    """Its first round is out."""
    WAITING = "waiting"
    """Idle in the queue."""
    TURN = "turn"
    """In the queue, with a full new round out."""
    DONE = "done"
    """Answered."""


class _Answered:
    """In place of a slot that has its answer."""

    deadline: float | None = None


ANSWERED: Final[ReplySlot] = _Answered()


@acyclic
@dataclass(slots=True, eq=False)
class Pending:
    """All that is known of an open query. Times in monotonic seconds."""

    query: RouteQuery
    slot: ReplySlot
    strategy: Strategy
    memory: Memory
    course: Course
    route: Route
    """Of the course, and so is ``strategy``: both are read often."""
    known: tuple[str, ...]
    """All providers there are, for the record."""
    generation: int
    """Of the table the round was made from."""
    is_dry: bool
    until: float
    """It waits no longer."""
    number: int
    """In the order in which queries came here."""
    began_at: float
    """Start of the round."""
    mark: int
    """The router's count of freed capacity at the start of the round."""
    state: State = State.ASKING
    is_full_round: bool = False
    """True: providers that refused are asked again."""
    asked: tuple[Entry, ...] = ()
    """Of the fan-out that is out now."""
    kept: tuple[Entry, ...] = ()
    """Who may be asked in this round; more than are asked at once if there are many."""
    seen: int = 0
    """How many of them were asked."""
    left_out: tuple[LeftOut, ...] = ()
    """Not asked in this round, and why."""
    answers: tuple[Bid | NoBid, ...] = ()
    """Round by round, in the order of asking; ``by_provider`` indexes them where that is wanted."""
    barred: tuple[tuple[str, Exclusion, str], ...] = ()
    """Who made a bid that could not be taken, why, and what more there is to say."""
    turn: str = ""
    """The provider whose turn the round is made for."""
    waits_on: tuple[str, ...] = ()
    failure: str = ""
    """Why the strategy of somebody else's making was replaced by ``first``."""
    head_start_s: float = 0.0
    """By how much its priority makes it older, of the course it began with: its place in line stays."""
    home: str = ""
    """Who has the beginning of its prompt (``affinity``)."""
    remark: str = ""
    """What ``affinity`` made of that, for the record."""
    hedge_after_s: float | None = None
    """As the plan says."""
    explored: str = ""
    """Who is explored by the plan."""
    is_led: bool = False
    """It is asked before the strategy's choice; False: it gets a copy."""
    crashed: tuple[str, ...] = ()
    """Who fell over a call for bids of any of its rounds, and is not in the query."""
    tally: Tally | None = None
    """Of whom its plan goes to while that is open, which it is since ``planned_at``."""
    planned_at: float = 0.0

    @property
    def order(self) -> tuple[float, int]:
        """Its place in every line: the request's arrival, by its priority sooner or later, then the order of queries here."""
        return self.query.arrived_at - self.head_start_s, self.number

    def set_out(self, course: Course, known: tuple[str, ...], generation: int) -> None:
        """Go on by another course, which a new generation gave. The place in line stays."""
        self.course, self.route, self.strategy = course, course.route, course.strategy
        self.known, self.generation = known, generation

    def begin_again(self, now: float, mark: int) -> None:
        """Forget the round before."""
        self.began_at = now
        self.mark = mark
        self.kept = ()
        self.seen = 0
        self.left_out = ()
        self.answers = ()
        self.barred = ()

    def by_provider(self) -> dict[str, Bid | NoBid]:
        """The answers of this round."""
        return {answer.provider: answer for answer in self.answers}

    def bar(self, provider: str, reason: Exclusion, detail: str = "") -> None:
        """Note a bid that cannot be taken."""
        self.barred += ((provider, reason, detail),)

    def refused_by(self) -> list[str]:
        """Providers not asked because they refused the award of the plan before."""
        return [left.provider for left in self.left_out if left.reason == Exclusion.REFUSED]

    def is_odd(self, answers: Sequence[Bid | NoBid]) -> bool:
        """Note who fell over it; whether handlers have fallen over its request as often now as they may, here or elsewhere.

        Who falls over its call for bids round after round is one handler.
        """
        before = self.query.crashed
        for answer in answers:
            if type(answer) is NoBid and answer.reason == NoBidReason.CRASHED:
                provider = answer.provider
                if provider not in before and provider not in self.crashed:
                    self.crashed += (provider,)
        return len(before) + len(self.crashed) >= CRASHES_MAX

    def reasons(self) -> list[LeftOut]:
        """Everybody who is not in the plan, and why, in the order of definition of those asked."""
        found = list(self.left_out)
        found += [LeftOut(provider, reason, detail) for provider, reason, detail in self.barred]
        for provider, answer in self.by_provider().items():
            if isinstance(answer, NoBid):
                found.append(LeftOut(provider, answer.reason, answer.detail, answer.retry_at))
        place = self.route.places
        found.sort(key=lambda left: place.get(left.provider, len(place)))
        return found

    def lacking(self, provider: str, reason: str) -> tuple[NoBidReason, str] | None:
        """What a candidate left out for ``reason`` lacks that the request needs, if that is asked before; None: nothing.

        Looked up when a record or an error is made, so that a decision pays nothing for it.
        """
        place = self.route.places.get(provider)
        if place is None or reason in SAID_BEFORE or reason in REQUIREMENTS:
            return None
        entry = self.route.entries[place]
        return lacking(entry.spec, entry.offers.get(self.route.model), self.query.profile)

    def leave_out_unable(self) -> None:
        """Keep only those who have answered in this round, and those who have what the request needs."""
        answered, kept, unable = self.by_provider(), list[Entry](), list[LeftOut]()
        for entry in self.kept:
            why = None if entry.id in answered else self.lacking(entry.id, Exclusion.NOT_SAMPLED)
            if why is None:
                kept.append(entry)
            else:
                unable.append(LeftOut(entry.id, why[0], why[1]))
        if unable:
            self.kept, self.left_out = tuple(kept), self.left_out + tuple(unable)

    def by_first_stage(self, left_out: list[LeftOut]) -> tuple[LeftOut, ...]:
        """``left_out``, each with the reason of the first stage that has one: what a provider lacks goes before policy."""
        found = [(left, self.lacking(left.provider, left.reason)) for left in left_out]
        return tuple([left if why is None else LeftOut(left.provider, why[0], why[1]) for left, why in found])
