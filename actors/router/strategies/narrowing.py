"""Whom to ask of more candidates than ``routing.fanout``: static orders with keys, and ways to pick from them.

An index is built once for each configuration and model, in O(n log n); picking from it costs O(count + log n). The keys are
lost where the router has filtered the candidates for a request; then they are made again, for filtering has cost O(n) too.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from math import inf
from random import Random

from actors.router.strategies.base import Memory, drawn, sampled
from actors.router.table import Entry


class Keyed(tuple[Entry, ...]):
    """Entries in a static order, with one number for each, ascending."""

    keys: tuple[float, ...]

    @staticmethod
    def of(entries: Iterable[Entry], keys: Iterable[float]) -> "Keyed":
        """Entries with their keys, which ascend."""
        keyed = Keyed(entries)
        keyed.keys = tuple(keys)
        return keyed


# -- in proportion to weight


def by_weight(entries: Sequence[Entry], model: str) -> Keyed:
    """The order of definition; the keys are the sums of the weights so far."""
    return Keyed.of(entries, accumulate(entry.spec.weight for entry in entries))


def sampled_by_weight(entries: Sequence[Entry], memory: Memory, rng: Random, count: int) -> list[Entry]:
    """One drawn in proportion to weight, the others at random: Midzuno's scheme.

    A sample then comes up with a probability proportional to its own total weight. So whoever of it is taken in proportion to
    weight is taken, over all samples, with exactly its share of the weight of all (Midzuno, 1952: *On the sampling system
    with probability proportionate to sum of sizes*). Drawing all of them by weight would count the weights twice; drawing
    none of them so would keep a provider that has most of the weight from getting it. The others are a window as ``sampled``
    has it: who is in it has nothing to do with weights; and the one stays as long as nothing else is drawn anew.
    """
    sums = entries.keys if isinstance(entries, Keyed) else by_weight(entries, "").keys
    if sums[-1] <= 0:
        return sampled(entries, memory, rng, count)
    if memory.fresh or memory.drawn_from is not entries:
        memory.first = bisect_right(sums, rng.random() * sums[-1])
    first = memory.first
    others = [position for position in drawn(entries, memory, rng, 0, len(entries), count) if position != first]
    return [entries[first], *[entries[position] for position in others[: count - 1]]]


def turn_by_weight(entries: Sequence[Entry], memory: Memory, rng: Random, count: int) -> list[Entry]:
    """A window of the static order that begins with whose turn it is by weight, and goes round."""
    sums = entries.keys if isinstance(entries, Keyed) else by_weight(entries, "").keys
    size = len(entries)
    start = bisect_right(sums, memory.turn % sums[-1]) if sums[-1] > 0 else memory.turn % size
    return [entries[(start + step) % size] for step in range(count)]


# -- best first


def list_price(entry: Entry, model: str) -> float:
    """USD for a million tokens in and as many out; infinite where the price is not known."""
    for offered in entry.spec.models:
        if offered.name == model:
            if offered.input_price is None and offered.output_price is None:
                return inf
            return (offered.input_price or 0.0) + (offered.output_price or 0.0)
    return inf


def by_price(entries: Sequence[Entry], model: str) -> Keyed:
    """Cheapest first by the price list, unknown prices last; equal ones in the order of definition."""
    return _sorted_by(entries, lambda entry: list_price(entry, model))


def by_capabilities(entries: Sequence[Entry], model: str) -> Keyed:
    """Fewest capabilities first; equal ones in the order of definition."""
    return _sorted_by(entries, lambda entry: float(len(entry.spec.capabilities)))


def by_priority(entries: Sequence[Entry], model: str) -> Keyed:
    """Highest priority first; equal ones in the order of definition."""
    return _sorted_by(entries, lambda entry: -float(entry.spec.priority))


def best_sampled(entries: Sequence[Entry], memory: Memory, rng: Random, count: int) -> list[Entry]:
    """The first of the static order; where the last places fall among equals, a random sample of these takes them."""
    if not isinstance(entries, Keyed) or entries.keys[count - 1] != entries.keys[count]:
        return list(entries[:count])
    keys = entries.keys
    low = bisect_left(keys, keys[count])
    size = bisect_right(keys, keys[count]) - low
    return [*entries[:low], *[entries[position] for position in drawn(entries, memory, rng, low, size, count - low)]]


def _sorted_by(entries: Sequence[Entry], key: Callable[[Entry], float]) -> Keyed:
    pairs = sorted(((key(entry), position, entry) for position, entry in enumerate(entries)), key=lambda pair: pair[:2])
    return Keyed.of((pair[2] for pair in pairs), (pair[0] for pair in pairs))
