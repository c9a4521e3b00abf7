"""What a strategy is: a pure function that ranks bids.

``rank(bids, ask, memory, rng)`` gets at least one bid, in the order of definition, and returns them all, each with its
score, best first; lower scores are better. Only weighted strategies leave somebody out: whoever has weight 0, and so they
may return nothing at all. A strategy changes nothing: what is to be remembered of the past stands in ``Memory``,
which the router keeps for each (strategy, model) and to which it tells the outcome (``learn``, then ``Memory.note``) when the
plan was made for real. Chance comes from ``rng`` only.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from random import Random

from actors.router.table import Entry
from messages.routing import Bid, RequestProfile

Ranked = list[tuple[float, Bid]]

MEMORIES_MAX = 4096
"""(strategy, model) pairs remembered; the names are anybody's where a provider takes any."""


@dataclass(slots=True)
class Ask:
    """What a strategy may know of the request and the configuration."""

    profile: RequestProfile
    seconds_per_usd: float
    is_by_p95: bool = False
    """``least_latency`` compares 95th percentiles, not medians."""


@dataclass(slots=True)
class Memory:
    """What is remembered of one strategy's choices for one model."""

    turn: int = 0
    served: dict[str, int] = field(default_factory=dict)
    """The turn in which a provider last won; never: not in it. Bounded by the providers of the table."""
    winner: str = ""
    """Who won last."""
    credits: dict[str, float] = field(default_factory=dict)
    """What a strategy's ``learn`` keeps for each provider. Bounded as ``served`` is."""
    mark: int = 0
    """Another number for ``learn``: the turn at whose end something began anew."""
    leaders: tuple[str, ...] = ()
    """Of a strategy that keeps them: those of the last sample, best first."""

    def note(self, provider: str) -> None:
        """Remember a winner."""
        self.turn += 1
        self.served[provider] = self.turn
        self.winner = provider


class Memories:
    """The memories of all (strategy, model) pairs; the oldest pair goes when there are too many."""

    __slots__ = ("_by_pair",)

    def __init__(self) -> None:
        self._by_pair: dict[tuple[str, str], Memory] = {}

    def __len__(self) -> int:
        return len(self._by_pair)

    def of(self, strategy: str, model: str) -> Memory:
        """The memory of a pair; an empty one if there is none."""
        memory = self._by_pair.get((strategy, model))
        if memory is None:
            if len(self._by_pair) >= MEMORIES_MAX:
                del self._by_pair[next(iter(self._by_pair))]
            memory = self._by_pair[strategy, model] = Memory()
        return memory

    def keep_only(self, providers: Container[str]) -> None:
        """Forget providers that are gone."""
        for memory in self._by_pair.values():
            memory.served = {provider: turn for provider, turn in memory.served.items() if provider in providers}
            memory.credits = {provider: credit for provider, credit in memory.credits.items() if provider in providers}


Rank = Callable[[list[Bid], Ask, Memory, Random], Ranked]
Index = Callable[[Sequence[Entry], str], Sequence[Entry]]
"""Candidates (and the public model name) to a static order of them; the router keeps it until the configuration changes."""
Narrow = Callable[[Sequence[Entry], Memory, Random, int], list[Entry]]
"""Of more candidates than may be asked (in the order of the strategy's index), so many to ask first, each once.

Costs what it returns, not what there is: five hundred candidates are no dearer than sixteen.
"""
Learn = Callable[[Memory, Ranked], None]
"""Told the whole ranking of a plan that was made, winner first."""


def first_of_index(entries: Sequence[Entry], memory: Memory, rng: Random, count: int) -> list[Entry]:
    """The first of the static order."""
    return list(entries[:count])


def sampled(entries: Sequence[Entry], memory: Memory, rng: Random, count: int) -> list[Entry]:
    """A random sample, for strategies that compare latency or load. See ``Strategy.keeps_winner``."""
    size = len(entries)
    chosen: dict[int, Entry] = {}
    while len(chosen) < count:
        position = int(rng.random() * size)
        chosen[position] = entries[position]
    return list(chosen.values())


@dataclass(frozen=True, slots=True)
class Strategy:
    """A strategy by name."""

    name: str
    rank: Rank
    narrow: Narrow = sampled
    keeps_winner: bool = True
    """True: the last winner is among those asked first."""
    index: Index | None = None
    """None: the order of definition."""
    learn: Learn | None = None
    is_weighted: bool = False
    """True: a provider of weight 0 takes nothing."""
    is_foreign: bool = False
    """True: of somebody else's making, so its ranking is checked, and ``first`` stands in where it fails."""
    is_order: bool = False
    """True: the static order is the whole choice, whatever the bids say."""
    keeps_leaders: bool = False
    """True: three quarters of those asked first are the best of the last sample, and only the others are drawn anew.

    For scores that say something of a provider rather than of this moment. Source: Mitzenmacher, Prabhakar and Shah, *Load
    balancing with memory* (2002): remembering the best is worth more than drawing more. It also asks actors that are at hand.
    """
