"""Strategies by load: ``least_connections`` (FEATURES B1)."""

from math import log
from random import Random

from actors.router.strategies.base import Ask, Memory, Ranked, Strategy, sampled
from messages.routing import Bid


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


LEAST_CONNECTIONS = Strategy("least_connections", rank_least_connections, sampled, is_weighted=True)
