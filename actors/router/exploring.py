"""Exploration: a copy of a small request finds out how a provider is doing that gets no calls by its merits.

Owns: the share of requests that may have a copy; when each provider was last the choice of a plan, when it last got a copy, and
whether one is out; the mean size of prompts.
Always: at most one copy is out at each provider; copies to one that is not used come no closer than max(0.25 s, 0.08 x the time
since it was), 60 s at most, so that it is found again after some 8 % of the time it was away; only where measurements choose,
never while anybody waits in the queue; only requests no larger than the mean, for copies are paid for.

Whom: in this order, who is benched (unhealthy, or its circuit on trial), who is slower than it used to be and was faster than
the one chosen, who was never tried, who is unheard for ``explore.idle``. Source: the simulation of docs/routing.md, which found
the return of a benched provider to be worth more than anything else; probing for what is not used as in Prequal (NSDI 2024).
"""

from collections.abc import Container

from actors.router.pending import Pending
from actors.router.shares import Share
from actors.router.strategies.base import Ranked
from messages.control import ExploreSpec
from messages.routing import Bid

TOKENS_MAX = 3.0
INTERVAL_MIN_S = 0.25
INTERVAL_MAX_S = 60.0
INTERVAL_SHARE = 0.08
LOST_S = 10.0
"""A copy whose end was not heard of for so long is taken for over."""
SLOWER = 1.3
"""From this multiple of its usual time a provider counts as degraded."""
PROMPT_GAIN = 0.02
CURIOUS = frozenset(
    ("adaptive", "least_latency", "optimize_latency", "optimize_reliability", "success_latency_ratio", "thompson")
)
"""Strategies that choose by what was measured; asked for membership only."""
_NOBODY = 4


class Exploring:
    """Times in monotonic seconds."""

    __slots__ = ("_asked", "_is_on", "_mean_prompt", "_out", "_spec", "share", "used")

    def __init__(self) -> None:
        self.share = Share(TOKENS_MAX)
        self._mean_prompt = 0.0
        self.used: dict[str, float] = {}
        """When a provider was last chosen, or first seen here."""
        self._asked: dict[str, float] = {}
        self._out: dict[str, float] = {}
        """Providers with a copy out, and since when."""
        self.adopt(ExploreSpec(), ())

    def adopt(self, spec: ExploreSpec, known: Container[str]) -> None:
        """Go on by a new configuration with the providers that are ``known`` to it, and with what was earned."""
        self._spec = spec
        self._is_on = spec.enabled and spec.max_share > 0.0
        self.share.share = spec.max_share
        self.used = {name: at for name, at in self.used.items() if name in known}
        self._asked = {name: at for name, at in self._asked.items() if name in known}
        self._out = {name: at for name, at in self._out.items() if name in known}

    def saw(self, prompt_tokens: int) -> None:
        """There was one more request."""
        self.share.earn()
        self._mean_prompt += (PROMPT_GAIN if self._mean_prompt else 1.0) * (prompt_tokens - self._mean_prompt)

    def ended(self, provider: str) -> None:
        """The copy there is over."""
        self._out.pop(provider, None)

    def choose(self, pending: Pending, ranked: Ranked, is_queueing: bool, now: float) -> Bid | None:
        """Who gets a copy of a request that goes to the first of ``ranked``; None: nobody. Pays for it out of the share."""
        self.used[ranked[0][1].provider] = now
        if not self._is_on or is_queueing or self.share.is_spent or len(ranked) < 2:
            return None
        query, course = pending.query, pending.course
        profile = query.profile
        if (
            query.tried
            or query.refused
            or profile.prompt_tokens > self._mean_prompt
            or profile.endpoint == "embeddings"
            or pending.strategy.name not in CURIOUS
        ):
            return None
        chosen = ranked[0][1]
        best, need = None, _NOBODY
        for position in range(1, len(ranked)):
            bid = ranked[position][1]
            its = self._need(bid, chosen)
            if its < need and bid.provider not in course.outside and self._is_due(bid, now):
                best, need = bid, its
        if best is not None:
            self.share.pay()
            pending.explored = best.provider
            self._asked[best.provider] = self._out[best.provider] = now
        return best

    def _need(self, bid: Bid, chosen: Bid) -> int:
        """How much it needs to be heard of, 0 most; ``_NOBODY``: not at all."""
        if bid.trial or not bid.healthy:
            return 0
        if bid.slowness > SLOWER and bid.expected_s < bid.slowness * chosen.expected_s:
            return 1
        if bid.samples <= 0:
            return 2
        return 3 if bid.unheard_s >= self._spec.idle_s else _NOBODY

    def _is_due(self, bid: Bid, now: float) -> bool:
        provider = bid.provider
        if bid.tight or (bid.room is not None and bid.room <= 0):
            return False
        if now - self._out.get(provider, now - LOST_S) < LOST_S:
            return False
        interval_s = INTERVAL_SHARE * (now - self.used.setdefault(provider, now))
        interval_s = min(max(interval_s, INTERVAL_MIN_S), INTERVAL_MAX_S)
        last = self._asked.get(provider)
        return last is None or now - last >= interval_s
