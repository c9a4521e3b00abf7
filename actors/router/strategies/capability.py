"""Strategies by what a provider can do: ``capability`` (FEATURES C1)."""

from random import Random

from actors.router.strategies.base import Ask, Memory, Ranked, Strategy
from actors.router.strategies.narrowing import best_sampled, by_capabilities
from messages.routing import Bid


def rank_capability(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Fewest capabilities that the request does not need first; their number is the score.

    Everybody who bids has those it does need. So specialists take what they can, and generalists stay free for what only
    they can. Ties go to the less loaded, then by definition order. Beyond ``routing.fanout`` those with the fewest
    capabilities are asked first.
    """
    keyed = [(bid.surplus, bid.in_flight, position, bid) for position, bid in enumerate(bids)]
    keyed.sort()
    return [(float(key[0]), key[3]) for key in keyed]


CAPABILITY = Strategy(
    "capability", rank_capability, best_sampled, keeps_winner=False, index=by_capabilities, counts_turns=False
)
