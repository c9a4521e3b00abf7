"""Strategies by measured latency: ``least_latency`` (FEATURES D3)."""

from random import Random

from actors.router.strategies.base import Ask, Memory, Ranked, Strategy, sampled
from messages.routing import Bid

SAMPLES_MIN = 10
"""A quantile of fewer says little (D3)."""
EXPLORING_MAX = 2
"""An unsampled provider is preferred only while it has fewer exploring calls in flight."""
_HEALTH_MIN = 0.01


def rank_least_latency(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Lowest latency ÷ health score first. Score in seconds.

    Latency is the median (or the 95th percentile, as ``Ask.is_by_p95`` says), from ten samples on. With fewer, the moving
    average stands in for it, and while fewer than two calls are in flight there it counts only in proportion to the samples
    there are (n ÷ 10): optimism that shrinks as evidence grows, so that one slow first call does not bar a provider for
    ever. With none at all it comes first while it has fewer than two exploring calls in flight, and last beyond that. Ties
    go to the less loaded, then to chance.
    """
    is_by_p95, draw = ask.is_by_p95, rng.random
    slowest_s = 0.0
    keyed = []
    unknown: list[int] = []
    for position, bid in enumerate(bids):
        samples, health, in_flight = bid.samples, bid.health, bid.in_flight
        score_s = 0.0
        if samples >= SAMPLES_MIN:
            score_s = (bid.latency_p95_s if is_by_p95 else bid.latency_p50_s) / (
                health if health > _HEALTH_MIN else _HEALTH_MIN
            )
            if score_s > slowest_s:
                slowest_s = score_s
        elif samples > 0:
            score_s = bid.latency_ewma_s / (health if health > _HEALTH_MIN else _HEALTH_MIN)
            if score_s > slowest_s:
                slowest_s = score_s
            if in_flight < EXPLORING_MAX:
                score_s = score_s * samples / SAMPLES_MIN
        elif bid.exploring >= EXPLORING_MAX:
            unknown.append(position)
        keyed.append((score_s, in_flight, draw(), position, bid))
    for position in unknown:
        key = keyed[position]
        keyed[position] = (1.5 * slowest_s + key[4].exploring, *key[1:])
    keyed.sort()
    return [(key[0], key[4]) for key in keyed]


LEAST_LATENCY = Strategy("least_latency", rank_least_latency, sampled, keeps_leaders=True, counts_turns=False)
