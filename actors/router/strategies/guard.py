"""What keeps a strategy of somebody else's making from doing harm: whatever it returns is checked before it is believed.

Each function does what its namesake does and says in one line why, if it could not: the caller logs and counts that. The
stand-in is ``first``. A strategy that never returns cannot be helped: it runs where the router runs.
"""

from collections.abc import Sequence
from math import isfinite
from random import Random
from typing import Any

from actors.router.strategies.base import Ask, Memory, Ranked, Strategy, first_of_index, sampled
from actors.router.strategies.order import rank_first
from actors.router.table import Entry
from messages.routing import Bid

WHY_MAX = 200
"""Characters of a reason."""
OUR_OWN = (sampled, first_of_index)
"""Need no check, which would cost as much as there are candidates."""
HARM = (Exception, SystemExit)
"""What a strategy may raise at the cost of no more than itself: to end the daemon is not for it to decide."""


def guarded(strategy: Strategy, bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> tuple[Ranked, str]:
    """The ranking of ``strategy``, and an empty string; or that of ``first``, and why.

    A ranking is a list of (score, bid): at least one, scores finite, each bid (or the id of its provider in its place) one of
    those given, none twice. It may leave bids out. The bids that come back are always those given.
    """
    rank: Any = strategy.rank  # What it returns may be anything, whatever its signature says.
    try:
        return _checked(rank(list(bids), ask, memory, rng), bids), ""
    except HARM as error:
        return rank_first(bids, ask, memory, rng), _why(error)


def guarded_index(strategy: Strategy, entries: Sequence[Entry], model: str) -> tuple[Sequence[Entry], str]:
    """The static order of ``strategy`` and an empty string; or the order of definition, and why."""
    if strategy.index is None:
        return entries, ""
    try:
        order = strategy.index(entries, model)
        if sorted(map(id, order)) != sorted(map(id, entries)):
            raise _Rubbish("the index does not hold exactly the candidates")
        return order, ""
    except HARM as error:
        return entries, _why(error)


def guarded_narrow(
    strategy: Strategy, entries: Sequence[Entry], memory: Memory, rng: Random, count: int
) -> tuple[list[Entry], str]:
    """Whom ``strategy`` would ask first and an empty string; or the first ``count``, and why."""
    if strategy.narrow in OUR_OWN:
        return strategy.narrow(entries, memory, rng, count), ""
    narrow: Any = strategy.narrow
    try:
        chosen: list[Any] = list(narrow(entries, memory, rng, count))
        if not 0 < len(chosen) <= count:
            raise _Rubbish(f"{len(chosen)} candidates were chosen, not 1 to {count}")
        _check_entries(chosen, entries)
        return chosen, ""
    except HARM as error:
        return first_of_index(entries, memory, rng, count), _why(error)


def guarded_learn(strategy: Strategy, memory: Memory, ranked: Ranked) -> str:
    """Tell ``strategy`` what was planned; returns why that failed, or an empty string."""
    if strategy.learn is None:
        return ""
    try:
        strategy.learn(memory, list(ranked))
        return ""
    except HARM as error:
        return _why(error)


class _Rubbish(Exception):
    """What a strategy returned cannot be used; the text says why."""


def _checked(result: object, bids: list[Bid]) -> Ranked:
    if not isinstance(result, list):
        raise _Rubbish(f"the ranking is no list but {type(result).__name__}")
    if not result:
        raise _Rubbish("the ranking is empty")
    if len(result) > len(bids):
        raise _Rubbish(f"{len(result)} ranked of {len(bids)} bids")
    given = {bid.provider: bid for bid in bids}
    ranked: Ranked = []
    for pair in result:
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise _Rubbish("a ranking holds pairs (score, bid)")
        score, named = pair
        if not isinstance(score, int | float) or not isfinite(score):
            raise _Rubbish(f"a score is no finite number but {str(score)[:40]}")
        provider = named.provider if isinstance(named, Bid) else named
        bid = given.pop(provider, None) if isinstance(provider, str) else None
        if bid is None:
            raise _Rubbish(f"{str(provider)[:40]!r} is ranked twice or did not bid")
        ranked.append((float(score), bid))
    return ranked


def _check_entries(chosen: list[Any], entries: Sequence[Entry]) -> None:
    given = {id(entry) for entry in entries}
    for entry in chosen:
        if id(entry) not in given:
            raise _Rubbish("a candidate was chosen twice or is none")
        given.discard(id(entry))


def _why(error: Exception | SystemExit) -> str:
    """One line, whatever the error holds."""
    name = type(error).__name__
    try:
        text = " ".join(str(error).split())
    except HARM:
        text = ""
    if isinstance(error, _Rubbish):
        return text[:WHY_MAX]
    return (f"{name}: {text}" if text else name)[:WHY_MAX]
