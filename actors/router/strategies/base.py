"""What a strategy is: a pure function that ranks bids.

``rank(bids, ask, memory, rng)`` gets at least one bid, in the order of definition, and returns them all, each with its
score, best first; lower scores are better. It changes nothing: what is to be remembered of the past stands in ``Memory``,
which the router keeps for each (strategy, model) and to which it tells the winner. Chance comes from ``rng`` only.
"""

from collections.abc import Callable, Container
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


@dataclass(slots=True)
class Memory:
    """What is remembered of one strategy's choices for one model."""

    turn: int = 0
    served: dict[str, int] = field(default_factory=dict)
    """The turn in which a provider last won; never: not in it. Bounded by the providers of the table."""
    winner: str = ""
    """Who won last."""

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


Rank = Callable[[list[Bid], Ask, Memory, Random], Ranked]
Narrow = Callable[[list[Entry], Memory, Random], list[Entry]]
"""The order in which candidates are asked when there are more than ``routing.fanout``."""


def in_definition_order(entries: list[Entry], memory: Memory, rng: Random) -> list[Entry]:
    """The static index of strategies that do not look at bids."""
    return entries


def sampled(entries: list[Entry], memory: Memory, rng: Random) -> list[Entry]:
    """A random order with the last winner in front: for strategies that compare latency or load."""
    order = list(entries)
    rng.shuffle(order)
    order.sort(key=lambda entry: entry.id != memory.winner)
    return order


@dataclass(frozen=True, slots=True)
class Strategy:
    """A strategy by name."""

    name: str
    rank: Rank
    narrow: Narrow
    is_weighted: bool = False
    """True: a provider of weight 0 takes nothing."""
