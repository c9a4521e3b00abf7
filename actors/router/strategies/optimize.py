"""Strategies by one aim and reliability: ``optimize_latency``, ``optimize_cost``, ``optimize_reliability`` (FEATURES E1).

    latency      0.7 latency + 0.3 reliability        latency = 1 ÷ (1 + EWMA in ms ÷ 100)
    cost         0.6 cost + 0.4 reliability           cost = 1 ÷ (1 + USD per 1000 tokens × 100), 0 if unknown
    reliability  0.7 reliability + 0.3 latency        reliability = 1 − error rate

The score is the sum, negated, so that lower is better. The error rate is that of the decayed counts. A provider never called
counts as one of 100 ms and no errors. Ties go to the less loaded, then to chance.
"""

from random import Random

from actors.router.strategies.base import Ask, Memory, Ranked, Strategy, sampled
from actors.router.strategies.narrowing import best_sampled, by_price
from messages.routing import Bid

FIRST_ESTIMATE_MS = 100.0
_LATENCY_MS = 100.0
_COST_FACTOR = 100.0


def rank_for_latency(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Highest 0.7 latency + 0.3 reliability first."""
    draw = rng.random
    keyed = [
        (-(0.7 * _latency(bid) + 0.3 * _reliability(bid)), bid.in_flight, draw(), position, bid)
        for position, bid in enumerate(bids)
    ]
    keyed.sort()
    return [(key[0], key[4]) for key in keyed]


def rank_for_cost(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Highest 0.6 cost + 0.4 reliability first."""
    draw = rng.random
    keyed = [
        (-(0.6 * _cost(bid) + 0.4 * _reliability(bid)), bid.in_flight, draw(), position, bid)
        for position, bid in enumerate(bids)
    ]
    keyed.sort()
    return [(key[0], key[4]) for key in keyed]


def rank_for_reliability(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Highest 0.7 reliability + 0.3 latency first."""
    draw = rng.random
    keyed = [
        (-(0.7 * _reliability(bid) + 0.3 * _latency(bid)), bid.in_flight, draw(), position, bid)
        for position, bid in enumerate(bids)
    ]
    keyed.sort()
    return [(key[0], key[4]) for key in keyed]


def _latency(bid: Bid) -> float:
    ewma_ms = bid.latency_ewma_s * 1e3 if bid.samples > 0 else FIRST_ESTIMATE_MS
    return 1.0 / (1.0 + ewma_ms / _LATENCY_MS)


def _cost(bid: Bid) -> float:
    cost_usd = bid.cost_usd
    if cost_usd is None:
        return 0.0
    usd_per_1k = cost_usd / (bid.tokens or 1) * 1000.0
    return 1.0 / (1.0 + usd_per_1k * _COST_FACTOR)


def _reliability(bid: Bid) -> float:
    calls = bid.successes + bid.failures
    return 1.0 - bid.failures / calls if calls > 0.0 else 1.0


OPTIMIZE_LATENCY = Strategy("optimize_latency", rank_for_latency, sampled, keeps_leaders=True, counts_turns=False)
OPTIMIZE_COST = Strategy("optimize_cost", rank_for_cost, best_sampled, index=by_price, counts_turns=False)
OPTIMIZE_RELIABILITY = Strategy("optimize_reliability", rank_for_reliability, sampled, keeps_leaders=True, counts_turns=False)
