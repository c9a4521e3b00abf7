"""Hedging: a second call beside one that is overdue. When it may be asked for, and what is answered.

Owns: the share of requests that may have one.
Always: no hedge while anybody waits in the queue, none at a provider that is unhealthy, on trial, full or over 80 % of a limit,
or that the request's ceilings, rules or hints leave out.

The time: ``late`` is about the p99.4 of the first provider's own spread. Where the runner-up would have its whole answer before
that, from then on, but not before about the p95: giving up on a slow provider early is worth more than waiting for proof.
Sources: "The Tail at Scale" (Dean and Barroso, CACM 2013: hedging at p95, a budget, cancelled losers); the two times come from
the simulation behind docs/routing.md.
"""

from random import Random

from actors.router.candidates import READY, offers, ranked_by
from actors.router.pending import Pending
from actors.router.plans import OpenPlans
from actors.router.queue import hopes
from actors.router.shares import Share
from actors.router.strategies.base import Ask, Ranked
from messages.control import HedgeSpec

TOKENS_MAX = 10.0
"""So many hedges may follow each other, if the requests before had none."""
LEAST_S = 0.03
"""No call is overdue before."""


class Hedging:
    """Times in seconds."""

    __slots__ = ("_is_on", "_spec", "share")

    def __init__(self) -> None:
        self.share = Share(TOKENS_MAX)
        self.adopt(HedgeSpec(), 0)

    def adopt(self, spec: HedgeSpec, requests: int) -> None:
        """Go on by a new configuration, with what was earned."""
        self._spec = spec
        self._is_on = spec.enabled and spec.max_share > 0.0
        self.share.change(spec.max_share, requests)

    def after_s(self, pending: Pending, ranked: Ranked, seconds_per_usd: float) -> float | None:
        """Age of the first one's call from which a hedge may be asked for; None: never, for there is nobody else."""
        is_alone = len(ranked) < 2
        if not self._is_on or (is_alone and not _has_rivals(pending)):
            return None
        first, spec = ranked[0][1], self._spec
        if spec.after == "fixed":
            return spec.after_s
        if spec.after == "p95" and first.samples > 0:
            return first.latency_p95_s if first.latency_p95_s > LEAST_S else LEAST_S
        late = first.overdue_s
        if is_alone:
            return late
        runner_up = ranked[1][1]
        rival_s = runner_up.expected_s
        if runner_up.likely_usd is not None:
            rival_s += seconds_per_usd * runner_up.likely_usd
        if rival_s >= late:
            return late
        early = first.overdue_early_s
        return rival_s if rival_s > early else early

    def choose(
        self, pending: Pending, planned: OpenPlans, is_queueing: bool, requests: int, ask: Ask, rng: Random
    ) -> Ranked | str:
        """Where a hedge goes, best first, or why there is none. Pays for it out of the share of ``requests`` so far."""
        if not self._is_on:
            return "hedging is off"
        if pending.is_odd(pending.answers):
            return "handlers fell over the request"
        if is_queueing:
            return "requests wait in the queue"
        if not self.share.may_pay(requests):
            return "over its share of requests"
        ask.profile = pending.query.profile
        fit = [bid for bid in offers(pending, planned, []).tiers[READY] if not (bid.tight or bid.trial)]
        ranked = ranked_by(pending, fit, ask, rng) if fit else []
        if not ranked:
            return "nobody else has room enough"
        self.share.pay()
        return ranked


def _has_rivals(pending: Pending) -> bool:
    """Whether somebody who is not in the plan may be free by the time its first call is overdue, or was not even asked."""
    if len(pending.kept) == 1 and not pending.left_out:
        return False
    return pending.seen < len(pending.kept) or bool(hopes(pending, pending.query.deadline))
