"""Strategies by order alone: ``first``, ``priority`` and ``round_robin``. They do not look at load, time or price."""

from collections.abc import Sequence
from operator import itemgetter
from random import Random

from actors.router.strategies.base import Ask, Memory, Ranked, Strategy, first_of_index
from actors.router.strategies.narrowing import by_priority
from actors.router.table import Entry
from messages.routing import Bid

_SCORE = itemgetter(0)


def rank_first(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Definition order. Score: the position, from 0."""
    return [(float(position), bid) for position, bid in enumerate(bids)]


def rank_priority(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Highest priority first, equal ones in definition order (FEATURES B2). Score: the priority, negated."""
    ranked = [(-float(bid.priority), bid) for bid in bids]
    ranked.sort(key=_SCORE)
    return ranked


def rank_round_robin(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Whoever won longest ago comes first; who never won before all others. Score: the turn of the last win.

    With a constant set of bids this is round robin in definition order. A counter modulo the number of bids would starve
    somebody when the set changes in step with it; here, of n providers, one that always bids wins at least once in n turns.
    """
    served = memory.served
    ranked = [(float(served.get(bid.provider, 0)), bid) for bid in bids]
    ranked.sort(key=_SCORE)
    return ranked


def _next_in_turn(entries: Sequence[Entry], memory: Memory, rng: Random, count: int) -> list[Entry]:
    """A window of the static order that moves on by one place with each turn, so everybody comes into it."""
    size = len(entries)
    start = memory.turn % size
    return [entries[(start + step) % size] for step in range(count)]


FIRST = Strategy("first", rank_first, first_of_index, keeps_winner=False, is_order=True, counts_turns=False)
PRIORITY = Strategy(
    "priority", rank_priority, first_of_index, keeps_winner=False, index=by_priority, is_order=True, counts_turns=False
)
ROUND_ROBIN = Strategy("round_robin", rank_round_robin, _next_in_turn, keeps_winner=False, is_by_turn=True)
