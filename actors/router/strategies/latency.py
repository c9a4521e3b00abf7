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
    is_by_p95 = ask.is_by_p95
    slowest = max((_latency_s(bid, is_by_p95) for bid in bids if bid.samples), default=0.0)
    keyed = [
        (_score_s(bid, slowest, is_by_p95), bid.in_flight, rng.random(), position, bid) for position, bid in enumerate(bids)
    ]
    keyed.sort()
    return [(key[0], key[4]) for key in keyed]


def _score_s(bid: Bid, slowest_s: float, is_by_p95: bool) -> float:
    if bid.samples <= 0:
        return 0.0 if bid.exploring < EXPLORING_MAX else 1.5 * slowest_s + float(bid.exploring)
    latency_s = _latency_s(bid, is_by_p95)
    if bid.samples < SAMPLES_MIN and bid.in_flight < EXPLORING_MAX:
        return latency_s * bid.samples / SAMPLES_MIN
    return latency_s


def _latency_s(bid: Bid, is_by_p95: bool) -> float:
    quantile_s = bid.latency_p95_s if is_by_p95 else bid.latency_p50_s
    measured_s = quantile_s if bid.samples >= SAMPLES_MIN else bid.latency_ewma_s
    return measured_s / max(bid.health, _HEALTH_MIN)


LEAST_LATENCY = Strategy("least_latency", rank_least_latency, sampled)
