"""Strategies by load: ``least_connections`` (FEATURES B1), ``least_requests`` (A5), ``power_of_two``."""

from math import log
from random import Random

from actors.router.strategies.base import Ask, Memory, Ranked, Strategy, sampled
from actors.router.strategies.narrowing import by_weight, sampled_by_weight
from messages.routing import Bid

EXPLORING_MAX = 2
"""An unknown provider is preferred only while it has fewer exploring calls in flight."""


def rank_least_connections(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Lowest in flight ÷ weight first; that is the score. Ties fall at random in proportion to weight.

    The order among ties is that of −ln(u) ÷ weight with u uniform in (0, 1]: the smallest of such exponentials is a
    provider's with probability weight ÷ sum of weights (Efraimidis & Spirakis, 2006), so that a cold start respects weights
    and so does the fall-back chain. A provider of weight 0 is not ranked at all; the router does not ask it.
    """
    keyed = [
        (bid.in_flight / bid.weight, -log(1.0 - rng.random()) / bid.weight, position, bid)
        for position, bid in enumerate(bids)
        if bid.weight > 0
    ]
    keyed.sort()
    return [(score, bid) for score, _, _, bid in keyed]


def rank_least_requests(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Fewest requests in flight now first, whatever the weights; that is the score. Ties fall at random."""
    draw = rng.random
    keyed = [(bid.in_flight, draw(), position, bid) for position, bid in enumerate(bids)]
    keyed.sort()
    return [(float(key[0]), key[3]) for key in keyed]


def rank_power_of_two(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Of two drawn at random the one with the lower score; then all others by score. Score: peak EWMA × (in flight + 1), in s.

    One without samples scores 0, so that it is tried whenever it is drawn, while it has fewer than two exploring calls in
    flight, and beyond that more than all known ones. Ties go to the less loaded, then to chance.

    Sources: Mitzenmacher, *The power of two choices in randomized load balancing* (2001); Finagle's peak EWMA.
    """
    draw = rng.random
    slowest = 0.0
    keyed = []
    for position, bid in enumerate(bids):
        load = bid.in_flight + 1
        score = 0.0
        if bid.samples > 0:
            score = (bid.latency_peak_s or bid.latency_ewma_s) * load
            if score > slowest:
                slowest = score
        keyed.append((score, load, draw(), position, bid))
    for place, key in enumerate(keyed):
        bid = key[4]
        if bid.samples <= 0 and bid.exploring >= EXPLORING_MAX:
            keyed[place] = (1.5 * slowest + bid.exploring, *key[1:])
    count = len(keyed)
    chosen = 0
    if count > 1:
        one, other = int(draw() * count), int(draw() * (count - 1))
        if other >= one:
            other += 1
        chosen = one if keyed[one] < keyed[other] else other
    winner = keyed.pop(chosen)
    keyed.sort()
    ranked = [(winner[0], winner[4])]
    ranked += [(key[0], key[4]) for key in keyed]
    return ranked


LEAST_CONNECTIONS = Strategy(
    "least_connections", rank_least_connections, sampled_by_weight, index=by_weight, is_weighted=True, counts_turns=False
)
LEAST_REQUESTS = Strategy("least_requests", rank_least_requests, sampled, counts_turns=False)
POWER_OF_TWO = Strategy("power_of_two", rank_power_of_two, sampled, counts_turns=False)
