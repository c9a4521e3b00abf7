"""Strategies by order alone: ``first`` and ``round_robin``. They do not look at what the bids say."""

from random import Random

from actors.router.strategies.base import Ask, Memory, Ranked, Strategy, in_definition_order
from actors.router.table import Entry
from messages.routing import Bid


def rank_first(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Definition order. Score: the position, from 0."""
    return [(float(position), bid) for position, bid in enumerate(bids)]


def rank_round_robin(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Whoever won longest ago comes first; who never won before all others. Score: the turn of the last win.

    With a constant set of bids this is round robin in definition order. A counter modulo the number of bids would starve
    somebody when the set changes in step with it; here, of n providers, one that always bids wins at least once in n turns.
    """
    served = memory.served
    ranked = [(float(served.get(bid.provider, 0)), bid) for bid in bids]
    ranked.sort(key=_score)
    return ranked


def _longest_ago(entries: list[Entry], memory: Memory, rng: Random) -> list[Entry]:
    return sorted(entries, key=lambda entry: memory.served.get(entry.id, 0))


def _score(pair: tuple[float, Bid]) -> float:
    return pair[0]


FIRST = Strategy("first", rank_first, in_definition_order)
ROUND_ROBIN = Strategy("round_robin", rank_round_robin, _longest_ago)
