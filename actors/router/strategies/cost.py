"""Strategies by price: ``cost`` (FEATURES C1, D3)."""

from random import Random

from actors.router.strategies.base import Ask, Memory, Ranked, Strategy
from actors.router.strategies.narrowing import best_sampled, by_price
from messages.routing import Bid

UNKNOWN_USD = 1e6
"""Score of an unknown price: above any request's, and finite."""


def rank_cost(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Cheapest for this request first, a price of 0 (local) before all, an unknown one last. Score in USD.

    The price is that of the prompt's estimate and ``max_tokens``, or of the output to come where that is not given. Ties go to
    the less loaded, then to chance. Beyond ``routing.fanout`` the cheapest by the price list are asked, with a sample of the
    equals that just fail to fit in.
    """
    draw = rng.random
    keyed = [
        (UNKNOWN_USD if bid.cost_usd is None else bid.cost_usd, bid.in_flight, draw(), position, bid)
        for position, bid in enumerate(bids)
    ]
    keyed.sort()
    return [(key[0], key[4]) for key in keyed]


COST = Strategy("cost", rank_cost, best_sampled, keeps_winner=False, index=by_price, counts_turns=False)
