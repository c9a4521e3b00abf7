"""The queue: requests that nobody can take now, and one line of them for each provider.

Owns: the waiting queries; for each provider that one of them waits for, a ``Line``; how fast each provider's line has moved.
Always: a query stands in the line of every provider it waits for. Who is next there is a matter of ``fairness``: within a
tenant the order of arrival, shifted by priority; between tenants, turns by tokens. A line in which somebody is
idle is *owed* something (the provider has said no and will say when it can, or a time is known), or a turn or an open plan
is under way for it. The router makes that true (``RouterActor._settle``) and its invariant checks it; it is why no wake-up
is lost. Nobody waits past ``Pending.until``. When there are too many, those go who came last of the tenant that has most.
"""

from bisect import bisect_left, insort
from collections.abc import Container
from dataclasses import dataclass, field
from math import inf

from actors.router.drain import Drain
from actors.router.fairness import Charge, FairQueue, Place
from actors.router.pending import Pending, State
from messages.routing import Exclusion, NoBid, NoBidReason, RequestProfile

RECHECK_S = 1.0
"""A line is asked again after so long without news: a provider that restarted has forgotten what it owes."""
PAUSE_S = 0.01
"""No line is asked more often by the clock, whatever ``retry_at`` says."""
CALL_TOKENS = 50
"""What a call counts for besides its tokens: half a second or so, which it takes whatever its length."""
OUTPUT_TOKENS = 1000
"""Expected of a request that does not bound its answer."""
WAIT_MAX_S = 600.0
"""No longer wait is foretold."""


@dataclass(slots=True)
class Line:
    """The queries that wait for one provider."""

    order: list[Place] = field(default_factory=list)
    """Of all, sorted: who came first, by priority sooner or later, stands first."""
    idle: FairQueue = field(default_factory=FairQueue)
    """Those of them who have no turn anywhere."""
    owed: bool = False
    """True: the provider will tell, or ``wake_at`` will come."""
    wake_at: float | None = None
    """When its refusals may end, as far as it said."""
    turns: dict[Place, Charge] = field(default_factory=dict)
    """Those for whom a round is under way for its sake."""
    heard_at: float = 0.0
    """When it last answered somebody of this line."""


class WaitingQueue:
    """The waiting queries. Times are monotonic seconds; nothing here knows a clock."""

    __slots__ = ("_drains", "_tenants", "freed", "lines", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[Place, Pending] = {}
        """By place, in no order."""
        self.lines: dict[str, Line] = {}
        self.freed: dict[str, int] = {}
        """The router's count of freed capacity when a provider last freed some. Bounded by the providers of the table."""
        self._drains: dict[str, Drain] = {}
        """Of the providers somebody has waited for. Bounded likewise."""
        self._tenants: dict[str, int] = {}
        """How many queries of each tenant wait."""

    def put(self, pending: Pending, waits_on: tuple[str, ...], now: float) -> None:
        """Let a query wait (on) for ``waits_on``, in its place. If it has had a turn, that cost nothing."""
        place, profile, turn = pending.order, pending.query.profile, pending.turn
        tokens, charged = tokens_of(profile), pending.waits_on if turn else ()
        if place not in self.waiting:
            self.waiting[place] = pending
            self._tenants[profile.tenant] = self._tenants.get(profile.tenant, 0) + 1
        self._leave_lines(pending)
        pending.state = State.WAITING
        pending.waits_on = waits_on
        for provider in waits_on:
            line = self.lines.get(provider)
            if line is None:
                line = self.lines[provider] = Line(heard_at=now)
                self._drains.setdefault(provider, Drain()).begin(now)
            insort(line.order, place)
            line.idle.put(place, profile.tenant, tokens, pending.head_start_s, line.turns.get(place))
            if provider in charged:
                self._drains[provider].went(-tokens, now)

    def take_out(self, pending: Pending) -> None:
        """Forget a query; one that does not wait is ignored."""
        if self.waiting.pop(pending.order, None) is None:
            return
        self._leave_lines(pending)
        tenant = pending.query.profile.tenant
        left = self._tenants.pop(tenant) - 1
        if left:
            self._tenants[tenant] = left

    def _leave_lines(self, pending: Pending) -> None:
        place = pending.order
        for provider in pending.waits_on:
            line = self.lines[provider]
            del line.order[bisect_left(line.order, place)]
            line.idle.discard(place)
            if not line.order and not line.turns:
                del self.lines[provider]
        pending.waits_on = ()

    def begin_turn(self, provider: str, now: float) -> Pending | None:
        """Say who is to have a round for the sake of ``provider``: the next in its line; None: nobody is idle there."""
        line = self.lines.get(provider)
        picked = None if line is None else line.idle.pick(now)
        if line is None or picked is None:
            return None
        place, charge = picked
        pending = self.waiting[place]
        tokens = tokens_of(pending.query.profile)
        pending.state = State.TURN
        pending.turn = provider
        line.turns[place] = charge
        for name in pending.waits_on:
            self.lines[name].idle.discard(place)
            self._drains[name].went(tokens, now)
        return pending

    def end_turn(self, pending: Pending) -> str:
        """The round is over; returns whose turn it was, or an empty string."""
        provider, pending.turn = pending.turn, ""
        if provider:
            line = self.lines[provider]
            del line.turns[pending.order]
            if not line.order and not line.turns:
                del self.lines[provider]
        return provider

    def crowded_out(self, pending: Pending, length_max: int) -> Pending | None:
        """Who must go if ``pending`` is to wait too; None: nobody.

        When all places are taken, that is the newcomer, or the last of the tenant with the most waiters, if that has more than
        the newcomer's would have then: the flood of one does not shut others out (longest queue drop; McKenney, 1990).
        """
        if pending.state is not State.ASKING or len(self.waiting) < length_max:
            return None
        tenants = self._tenants
        most = max(tenants, key=lambda tenant: tenants[tenant], default="")
        if tenants.get(most, 0) <= tenants.get(pending.query.profile.tenant, 0) + 1:
            return pending
        others = [other for other in self.waiting.values() if other.query.profile.tenant == most and not other.turn]
        return max(others, key=lambda other: other.order, default=pending)

    def wait_s(self, pending: Pending, now: float) -> float | None:
        """Seconds a query like ``pending`` would wait if it came now: what is before it, at the pace the line has had of late.

        That is for the quickest of the providers it could hope for, and for none less than its refusals last. None: nobody else
        waits for those, or nothing is known yet.
        """
        profile, answers = pending.query.profile, pending.by_provider()
        waits: list[float] = []
        for provider in hopes(pending, inf):
            line = self.lines.get(provider)
            if line is None:
                continue
            # Who is in the line itself is not counted twice.
            tokens = 0 if pending.order in line.idle else tokens_of(profile)
            wait_s = self._drains[provider].wait_s(line.idle.ahead_of(profile.tenant, tokens), now)
            if wait_s is not None:
                answer = answers.get(provider)
                retry_at = answer.retry_at if isinstance(answer, NoBid) else None
                waits.append(wait_s if retry_at is None else max(wait_s, retry_at - now))
        return min(*waits, WAIT_MAX_S) if waits else None

    def keep_only(self, known: Container[str]) -> None:
        """Forget what is noted of providers that are not ``known`` any more and for which nobody waits."""
        self.freed = {provider: count for provider, count in self.freed.items() if provider in known}
        self._drains = {name: drain for name, drain in self._drains.items() if name in known or name in self.lines}

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
        """None while every line in which somebody is idle will be woken, and holds who it should. See the law above."""
        for provider, line in self.lines.items():
            idle = [place for place in line.order if self.waiting[place].state is State.WAITING]
            if len(idle) != len(line.idle) or not all(place in line.idle for place in idle):
                return f"the line for {provider} has {len(line.idle)} to call and {len(idle)} who wait"
            fault = line.idle.fault()
            if fault is not None:
                return f"the line for {provider}: {fault}"
            if idle and not (line.owed or line.turns or provider in planned or provider in unsettled):
                return f"nobody will wake query {self.waiting[idle[0]].query.query_id} that waits for {provider}"
        return None


def tokens_of(profile: RequestProfile) -> int:
    """What a request counts for between tenants, in tokens: prompt, answer as far as it is bounded, and the call itself."""
    if profile.endpoint == "embeddings":
        return profile.prompt_tokens + CALL_TOKENS
    return profile.prompt_tokens + (OUTPUT_TOKENS if profile.max_tokens is None else profile.max_tokens) + CALL_TOKENS


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
    return () if until <= now else tuple(hopes(pending, until))


def hopes(pending: Pending, until: float) -> list[str]:
    """Who of those asked may still take the query before ``until``."""
    found = pending.refused_by()
    ahead = {provider for provider, reason, _ in pending.barred if reason == Exclusion.WAITERS_AHEAD}
    for provider, answer in pending.by_provider().items():
        if isinstance(answer, NoBid):
            if can_end(answer, until):
                found.append(provider)
        elif provider in ahead:
            found.append(provider)
    return found
