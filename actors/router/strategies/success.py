"""Strategies by success: ``success_latency_ratio`` (FEATURES A5) and ``thompson`` (D3).

Successes and failures are counts that decay, so that what was long ago does not weigh for ever.
"""

from operator import itemgetter
from random import Random

from actors.router.strategies.base import Ask, Memory, Ranked, Strategy, sampled
from actors.router.strategies.beta import draw_beta
from messages.routing import Bid

UNKNOWN_RATIO = 1000.0
EXPLORING_MAX = 2
"""An unknown provider is preferred only while it has fewer exploring calls in flight."""
_SCORE = itemgetter(0)


def rank_success_latency_ratio(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Highest success rate ÷ (average latency in ms + 1) × 1000 first; the score is that, negated.

    A provider without samples counts as 1000, so that it is tried, while it has fewer than two exploring calls in flight,
    and as 0 beyond that. Ties go to the less loaded, then to chance.
    """
    draw = rng.random
    keyed = [(-_ratio(bid), bid.in_flight, draw(), position, bid) for position, bid in enumerate(bids)]
    keyed.sort()
    return [(key[0], key[4]) for key in keyed]


def _ratio(bid: Bid) -> float:
    if bid.samples <= 0:
        return UNKNOWN_RATIO if bid.exploring < EXPLORING_MAX else 0.0
    calls = bid.successes + bid.failures
    rate = bid.successes / calls if calls > 0.0 else 1.0
    return rate / (bid.latency_ewma_s * 1e3 + 1.0) * 1000.0


def rank_thompson(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Highest chance of success first, each drawn from Beta(successes + 1, failures + 1). Score: 1 − the draw.

    A provider of which little is known draws from a wide distribution, so it is tried now and then; more evidence makes the
    draws narrow. Source: Thompson, *On the likelihood that one unknown probability exceeds another* (1933).
    """
    ranked = [(1.0 - draw_beta(rng, bid.successes + 1.0, bid.failures + 1.0), bid) for bid in bids]
    ranked.sort(key=_SCORE)
    return ranked


SUCCESS_LATENCY_RATIO = Strategy(
    "success_latency_ratio", rank_success_latency_ratio, sampled, keeps_leaders=True, counts_turns=False
)
THOMPSON = Strategy("thompson", rank_thompson, sampled, counts_turns=False)
