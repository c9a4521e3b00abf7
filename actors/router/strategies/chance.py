"""Strategies by chance alone: ``random`` (FEATURES D3)."""

from operator import itemgetter
from random import Random

from actors.router.strategies.base import Ask, Memory, Ranked, Strategy, sampled
from messages.routing import Bid

_SCORE = itemgetter(0)


def rank_random(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Any order, each as likely as any other. Score: a number drawn from 0 to 1."""
    draw = rng.random
    ranked = [(draw(), bid) for bid in bids]
    ranked.sort(key=_SCORE)
    return ranked


RANDOM = Strategy("random", rank_random, sampled, keeps_winner=False, counts_turns=False)
"""The last winner is not kept among those asked: it would win more often than the others."""
