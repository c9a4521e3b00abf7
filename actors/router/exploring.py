"""Exploration: how providers that get no calls by their merits are found again.

Owns: the share of requests that may have a copy; when each provider was last seen to be the choice of a plan, when it was last
explored, and whether a call that explores it is out.
Always: one such call at a time for each provider, and no sooner after the one before than a share of the time since it was last
used, so that it is found again after so much of the time it was away; only where measurements choose; never while anybody
waits in the queue, nor at a provider over 80 % of a limit or over a ceiling of the request.

Two ways. A *lead*: who is benched and fails at once, for next to nothing, gets a request of its own before the strategy's
choice, and costs that request milliseconds if it fails again. A *copy* for all others, beside the first call: the first
content wins. Copies are paid for, so they are few (``explore.max_share``) and small (of prompts not above the mean).

Who gets a copy: a provider that is benched (its circuit open or on trial, or unhealthy) or slower than it used to be, if it was
better than the one chosen; then one that never answered; then one unheard for ``explore.idle``.

Source: the simulation of docs/routing.md, which found the return of benched providers to be worth more than hedging; probing
what is not used as in Prequal (NSDI 2024).
"""

from collections.abc import Container, Iterator

from actors.router.candidates import over_ceiling
from actors.router.pending import Pending
from actors.router.shares import Share
from actors.router.strategies.base import Ranked
from messages.control import RoutingSpec
from messages.routing import Bid, NoBid

TOKENS_MAX = 3.0
"""So many copies may follow each other, if the requests before had none."""
LOOK_S = 0.05
"""Who is due is looked up so often at most: intervals are longer, and a decision should not pay for it each time."""
INTERVAL_MIN_S = 0.25
INTERVAL_MAX_S = 60.0
COPY_INTERVAL = 0.08
"""Of the time a provider has been out of use."""
LEAD_INTERVAL = 0.04
CHEAP_S = 0.06
"""Who loses a request less than this by failing fails cheaply ..."""
CUT_P_MAX = 0.05
"""... unless it breaks streams that have begun."""
LOST_S = 10.0
"""A call whose end was not heard of for so long is taken for over."""
SLOWER = 1.3
"""From this multiple of its usual time a provider counts as degraded."""
PROMPT_GAIN = 0.02
PROMPT_MAX = 1.1
"""Times the mean: where all prompts are of a size, some are a token above it."""
CURIOUS = frozenset(
    ("adaptive", "least_latency", "optimize_latency", "optimize_reliability", "success_latency_ratio", "thompson")
)
"""Strategies that choose by what was measured; asked for membership only."""
_BETTER, _NEVER_TRIED, _UNHEARD, _NO_NEED = 0, 1, 2, 3
"""How much a provider needs to be heard of, most first."""


class Exploring:
    """Times in monotonic seconds."""

    __slots__ = ("_asked", "_may_lead", "_mean_prompt", "_out", "_seconds_per_usd", "_spec", "_used", "look_at", "share")

    def __init__(self, routing: RoutingSpec) -> None:
        self.share = Share(TOKENS_MAX)
        self._mean_prompt = 0.0
        self.look_at = 0.0
        """From when on (monotonic s) the next decision looks whether somebody is due."""
        self._used: dict[str, float] = {}
        """When a provider was last seen chosen, or first seen here."""
        self._asked: dict[str, float] = {}
        """When it was last explored."""
        self._out: dict[str, float] = {}
        """Who is being explored, and since when."""
        self.adopt(routing, (), 0)

    def adopt(self, routing: RoutingSpec, known: Container[str], requests: int) -> None:
        """Go on by a new configuration with the providers that are ``known`` to it, and with what was earned."""
        self._spec = spec = routing.explore
        self.share.change(spec.max_share if spec.enabled else 0.0, requests)
        self._seconds_per_usd = routing.seconds_per_usd
        self._may_lead = routing.failover.enabled and routing.failover.max_attempts > 1
        self._used, self._asked, self._out = (
            {name: at for name, at in times.items() if name in known} for times in (self._used, self._asked, self._out)
        )

    def ended(self, provider: str, is_good: bool) -> None:
        """The call that explored it is over. Good news deserves a second look at once."""
        self._out.pop(provider, None)
        if is_good:
            self._asked.pop(provider, None)

    def choose(
        self, pending: Pending, ranked: Ranked, is_queueing: bool, requests: int, now: float
    ) -> tuple[Ranked, Bid | None]:
        """The way of a request, ``ranked`` as it is or with a lead before it; and who gets a copy, paid for from the share.

        To be asked from ``look_at`` on; ``requests`` are all that had a plan so far.
        """
        query, chosen = pending.query, ranked[0][1]
        self._used[chosen.provider] = now
        if not self._is_fit(pending, is_queueing):
            return ranked, None
        self.look_at = now + LOOK_S
        prompt_tokens = query.profile.prompt_tokens
        self._mean_prompt += (PROMPT_GAIN if self._mean_prompt else 1.0) * (prompt_tokens - self._mean_prompt)
        if self._may_lead:
            for bid in _others(pending, ranked):
                if self._may_lead_with(bid, chosen, query.profile.stream) and self._is_due(bid, LEAD_INTERVAL, now):
                    pending.is_led = True
                    self._begin(pending, bid, now)
                    return [(0.0, bid), *(pair for pair in ranked if pair[1] is not bid)], None
        if prompt_tokens > PROMPT_MAX * self._mean_prompt or not self.share.may_pay(requests):
            return ranked, None
        best, need = None, _NO_NEED
        for bid in _others(pending, ranked):
            its = self._need(bid, chosen, now)
            if its < need and self._is_due(bid, COPY_INTERVAL, now):
                best, need = bid, its
        if best is not None:
            self.share.pay()
            self._begin(pending, best, now)
        return ranked, best

    def _is_fit(self, pending: Pending, is_queueing: bool) -> bool:
        query = pending.query
        return (
            self._spec.enabled
            and not (is_queueing or query.tried or query.refused)
            and pending.strategy.name in CURIOUS
            and query.profile.endpoint != "embeddings"
        )

    def _begin(self, pending: Pending, bid: Bid, now: float) -> None:
        pending.explored = provider = bid.provider
        self._asked[provider] = self._out[provider] = now

    def _may_lead_with(self, bid: Bid, chosen: Bid, stream: bool) -> bool:
        if not (bid.trial or (not bid.healthy and bid.failure_p > 0.0)):
            return False
        if bid.failure_loss_s > CHEAP_S or (stream and bid.cut_p > CUT_P_MAX) or bid.samples <= 0:
            return False
        return self._cost_s(bid) < self._cost_s(chosen)

    def _cost_s(self, bid: Bid) -> float:
        """What the request would cost there, as it is and as ``adaptive`` counts, in seconds."""
        return bid.expected_s + self._seconds_per_usd * (bid.likely_usd or 0.0)

    def _need(self, bid: Bid, chosen: Bid, now: float) -> int:
        if bid.trial or not bid.healthy or bid.slowness > SLOWER:
            was_s = self._cost_s(bid) - bid.expected_s * (1.0 - 1.0 / max(1.0, bid.slowness))
            if was_s < self._cost_s(chosen):
                return _BETTER
        idle_s = self._spec.idle_s
        if bid.samples <= 0:
            return _NEVER_TRIED
        # A copy that loses tells nothing, so the time since it was asked counts too.
        is_unheard = bid.unheard_s >= idle_s and now - self._asked.get(bid.provider, now - idle_s) >= idle_s
        return _UNHEARD if is_unheard else _NO_NEED

    def _is_due(self, bid: Bid, share: float, now: float) -> bool:
        provider = bid.provider
        if bid.tight or (bid.room is not None and bid.room <= 0) or now - self._out.get(provider, now - LOST_S) < LOST_S:
            return False
        interval_s = share * (now - self._used.setdefault(provider, now))
        interval_s = min(max(interval_s, INTERVAL_MIN_S), INTERVAL_MAX_S)
        last = self._asked.get(provider)
        return last is None or now - last >= interval_s


def _shut_out(pending: Pending) -> Iterator[Bid]:
    """Offers from behind open circuits, of those that the request may go to."""
    for answer in pending.answers:
        if type(answer) is NoBid and (bid := answer.exploring) is not None:
            course = pending.course
            if course.is_plain or (bid.provider not in course.outside and course.suits(bid) and not over_ceiling(pending, bid)):
                yield bid


def _others(pending: Pending, ranked: Ranked) -> Iterator[Bid]:
    """Everybody but the one chosen."""
    outside = pending.course.outside
    for position in range(1, len(ranked)):
        bid = ranked[position][1]
        if bid.provider not in outside:
            yield bid
    if len(ranked) < len(pending.answers):
        yield from _shut_out(pending)
