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

from actors.kernel import Refs
from actors.router.table import Entry
from messages.routing import Bid, CallForBids, RequestProfile

Ranked = list[tuple[float, Bid]]

MEMORIES_MAX = 4096
"""(strategy, model) pairs remembered; the names are anybody's where a provider takes any."""
FRESH_S = 0.0005
"""Time that pays for one candidate drawn anew: about a fiftieth of it, for whoever is drawn is in none of the caches."""


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
    ranking: Ranked = field(default_factory=list)
    """Of a strategy that keeps leaders: the last sample, best first."""
    window: list[int] = field(default_factory=list)
    """Of those asked last by a strategy that draws them: their places in ``drawn_from``, the oldest first."""
    drawn_from: Sequence[Entry] = ()
    first: int = 0
    """Place of the one drawn by its weight, by a strategy that does so."""
    asked: tuple[Entry, ...] = ()
    """The last sample, where all of it bid; asked again while nothing is drawn anew."""
    asked_of: tuple[Entry, ...] = ()
    """All that might have been asked then."""
    asked_refs: Refs[CallForBids] | None = None
    fresh: int = 0
    """So many of the next sample are drawn anew; the router says so (``freshen``)."""
    fresh_at: float = 0.0
    """Monotonic s up to which time has paid for candidates drawn anew."""

    def freshen(self, now: float, is_crowded: bool) -> None:
        """Let the next sample have one candidate anew for each half ms that passed, and one where it ``is_crowded``.

        That it is while the last winner does not know yet that it won: many decisions at one moment are not all to meet the
        same candidates. So what is drawn anew costs no more than a small share of the processor however many decisions there
        are, and a sample is wholly new where they are few.
        """
        passed = int((now - self.fresh_at) / FRESH_S)
        if passed > 0:
            self.fresh, self.fresh_at = passed, now
        else:
            self.fresh = 1 if is_crowded else 0

    def note(self, provider: str, counts_turns: bool = True) -> None:
        """Remember a winner; when, only for a strategy that counts turns."""
        self.turn += 1
        self.winner = provider
        if counts_turns:
            self.served[provider] = self.turn


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
            memory.window, memory.drawn_from = [], ()
            memory.asked = memory.asked_of = ()


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
    """A random sample, for strategies that compare latency or load. See ``Strategy.keeps_winner``.

    It is a window that moves on over a random sequence of the candidates: ``memory.fresh`` of them are new, and the others are
    those of the decision before, still in the processor's caches. Nothing but chance says who comes and when it goes, so each
    set is as likely as any other, as if all had been drawn anew; only samples that follow one another at once are alike. Where
    the candidates are others (a reload, a request that bars some), all are drawn anew.
    """
    if len(entries) <= count:
        return list(entries)
    return [entries[position] for position in drawn(entries, memory, rng, 0, len(entries), count)]


def drawn(entries: Sequence[Entry], memory: Memory, rng: Random, low: int, size: int, count: int) -> list[int]:
    """The window of ``sampled``, over the ``size`` places from ``low`` only: ``count`` places, fewer than ``size``."""
    window = memory.window
    if memory.drawn_from is not entries or not window or not low <= window[0] < low + size:
        window = memory.window = []
        memory.drawn_from = entries
    wanted = min(count, max(memory.fresh, count - len(window)))
    # Who leaves may be drawn again: then every place that is not kept is as likely.
    del window[: len(window) - (count - wanted)]
    while wanted:
        position = low + int(rng.random() * size)
        if position not in window:
            window.append(position)
            wanted -= 1
    return window


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
    is_by_turn: bool = False
    """True: whom to ask depends on whose turn it is, so the same are not asked twice."""
    counts_turns: bool = True
    """False: it has no use for ``Memory.served``, which is then not kept."""
    is_order: bool = False
    """True: the static order is the whole choice, whatever the bids say."""
    keeps_leaders: bool = False
    """True: three quarters of those asked first are the best of the last sample, and only the others are drawn.

    For scores that say something of a provider rather than of this moment. Source: Mitzenmacher, Prabhakar and Shah, *Load
    balancing with memory* (2002): remembering the best is worth more than drawing more. It also asks actors that are at hand.
    """
