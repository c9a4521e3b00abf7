"""The queue: requests that nobody can take now, in the order of their arrival, and one line of them for each provider.

Owns: the waiting queries and, for each provider that one of them waits for, a ``Line``.
Always: a query stands in the line of every provider it waits for, in the order of arrival; a line in which somebody is
idle is *owed* something (the provider has said no and will say when it can, or a time is known), or a turn or an open plan
is under way for it. The router makes that true (``RouterActor._settle``) and its invariant checks it; it is why no wake-up
is lost. Nobody waits past ``Pending.until``.
"""

from bisect import bisect_left, insort
from collections.abc import Container
from dataclasses import dataclass, field
from math import inf

from actors.router.pending import Pending, State
from messages.routing import Exclusion, NoBid, NoBidReason

RECHECK_S = 1.0
"""A line is asked again after so long without news: a provider that restarted has forgotten what it owes."""
PAUSE_S = 0.01
"""No line is asked more often by the clock, whatever ``retry_at`` says."""

Place = tuple[float, int]


@dataclass(slots=True)
class Line:
    """The queries that wait for one provider."""

    order: list[Place] = field(default_factory=list)
    """Sorted: who came first stands first."""
    owed: bool = False
    """True: the provider will tell, or ``wake_at`` will come."""
    wake_at: float | None = None
    """When its refusals may end, as far as it said."""
    turns: int = 0
    """Rounds under way for it."""
    heard_at: float = 0.0
    """When it last answered somebody of this line."""


class WaitingQueue:
    """The waiting queries. Times are monotonic seconds; nothing here knows a clock."""

    __slots__ = ("freed", "lines", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[Place, Pending] = {}
        """By place, in no order."""
        self.lines: dict[str, Line] = {}
        self.freed: dict[str, int] = {}
        """The router's count of freed capacity when a provider last freed some. Bounded by the providers of the table."""

    def put(self, pending: Pending, waits_on: tuple[str, ...], now: float) -> None:
        """Let a query wait (on) for ``waits_on``, in its place."""
        self._leave_lines(pending)
        pending.state = State.WAITING
        pending.waits_on = waits_on
        self.waiting[pending.order] = pending
        for provider in waits_on:
            line = self.lines.get(provider)
            if line is None:
                line = self.lines[provider] = Line(heard_at=now)
            insort(line.order, pending.order)

    def take_out(self, pending: Pending) -> None:
        """Forget a query; one that does not wait is ignored."""
        if self.waiting.pop(pending.order, None) is not None:
            self._leave_lines(pending)

    def _leave_lines(self, pending: Pending) -> None:
        for provider in pending.waits_on:
            line = self.lines[provider]
            del line.order[bisect_left(line.order, pending.order)]
            if not line.order and not line.turns:
                del self.lines[provider]
        pending.waits_on = ()

    def begin_turn(self, provider: str, pending: Pending) -> None:
        """A round is made for the first in the line of ``provider``."""
        pending.state = State.TURN
        pending.turn = provider
        self.lines[provider].turns += 1

    def end_turn(self, pending: Pending) -> str:
        """The round is over; returns whose turn it was, or an empty string."""
        provider, pending.turn = pending.turn, ""
        if provider:
            line = self.lines[provider]
            line.turns -= 1
            if not line.order and not line.turns:
                del self.lines[provider]
        return provider

    def hear(self, provider: str, retry_at: float | None, mark: int, now: float) -> None:
        """A provider of whose line somebody is said no. If it freed capacity after the round began, it owes nothing."""
        line = self.lines[provider]
        line.heard_at = now
        if self.freed.get(provider, 0) > mark:
            return
        line.owed = True
        if retry_at is not None:
            at = max(retry_at, now + PAUSE_S)
            line.wake_at = at if line.wake_at is None else min(line.wake_at, at)

    def hear_all(self, pending: Pending, pause_s: float, now: float) -> float:
        """Hear whoever ``pending`` waits for; who refused an award may be asked again ``pause_s`` later. When to look again."""
        soonest = min(pending.until, now + RECHECK_S)
        answers = pending.by_provider()
        for provider in pending.waits_on:
            answer = answers.get(provider)
            if answer is None:
                self.hear(provider, now + pause_s, pending.mark, now)
            elif isinstance(answer, NoBid):
                self.hear(provider, answer.retry_at, pending.mark, now)
            soonest = min(soonest, self.lines[provider].wake_at or inf)
        return soonest

    def first_idle(self, provider: str) -> Pending | None:
        """The first in line who is not having a turn."""
        line = self.lines.get(provider)
        if line is not None:
            for place in line.order:
                pending = self.waiting[place]
                if pending.state is State.WAITING:
                    return pending
        return None

    def held_from(self, pending: Pending) -> list[str]:
        """Providers that ``pending`` may not take, because somebody who came earlier waits for them.

        Who has a turn for a provider may take it: those ahead are having theirs, or have had it.
        """
        own = pending.turn
        return [
            provider
            for provider, line in self.lines.items()
            if provider != own and line.order and line.order[0] < pending.order
        ]

    def all(self) -> list[Pending]:
        """Everybody, in order."""
        return [self.waiting[place] for place in sorted(self.waiting)]

    def expired(self, now: float) -> list[Pending]:
        """Idle queries whose time is over, in order."""
        return [pending for pending in self.all() if pending.state is State.WAITING and pending.until <= now]

    def due(self, now: float) -> list[str]:
        """Lines to be asked again by the clock. What they were owed is thereby spent."""
        found: list[str] = []
        for provider, line in self.lines.items():
            if line.wake_at is not None and line.wake_at <= now:
                line.wake_at = None
                line.owed = False
                found.append(provider)
            elif not line.turns and line.heard_at + RECHECK_S <= now:
                line.heard_at = now
                found.append(provider)
        return found

    def next_due(self) -> float:
        """When ``expired`` or ``due`` will next have something; infinity if nobody waits."""
        soonest = inf
        for pending in self.waiting.values():
            soonest = min(soonest, pending.until) if pending.state is State.WAITING else soonest
        for line in self.lines.values():
            soonest = min(soonest, line.heard_at + RECHECK_S if not line.turns else inf)
            if line.wake_at is not None:
                soonest = min(soonest, line.wake_at)
        return soonest

    def fault(self, planned: Container[str], unsettled: Container[str]) -> str | None:
        """None while every line in which somebody is idle will be woken. See the law above."""
        for provider, line in self.lines.items():
            idle = self.first_idle(provider)
            is_under_way = line.owed or line.turns or provider in planned or provider in unsettled
            if idle is not None and not is_under_way:
                return f"nobody will wake query {idle.query.query_id} that waits for {provider}"
        return None


def can_end(answer: NoBid, until: float) -> bool:
    """Whether waiting for a provider that said no can help before ``until``."""
    if answer.reason == NoBidReason.AT_CAPACITY:
        return answer.retry_at is None or answer.retry_at < until
    if answer.reason in (NoBidReason.RATE_LIMITED, NoBidReason.CIRCUIT_OPEN):
        return answer.retry_at is not None and answer.retry_at < until
    return False


def waits_on(pending: Pending, now: float) -> tuple[str, ...]:
    """For whom it is worth waiting after a round without a bid that could be taken; empty: for nobody."""
    until = pending.until
    if until <= now:
        return ()
    found = pending.refused_by()
    ahead = {provider for provider, reason, _ in pending.barred if reason == Exclusion.WAITERS_AHEAD}
    for provider, answer in pending.by_provider().items():
        if isinstance(answer, NoBid):
            if can_end(answer, until):
                found.append(provider)
        elif provider in ahead:
            found.append(provider)
    return tuple(found)
