"""Who is asked, and who of those that bid can be taken: the stages of a decision before its strategy."""

from dataclasses import dataclass
from random import Random
from typing import Any

from actors.router.pending import Pending
from actors.router.strategies.base import Ask, Ranked
from actors.router.table import Entry
from messages.routing import NO_HINTS, Bid, Exclusion, LeftOut, NoBid

_KNEE = 8
"""Calls a provider is thought to serve side by side before one slows the other, until it shows otherwise."""
_PRESSURE = 0.9
"""Weight of queueing that is only feared: soft 0.3 × wait weight 3 (docs/routing.md)."""


def select(pending: Pending, fanout: int, rng: Random) -> tuple[Entry, ...]:
    """Say who is asked first; set who is asked only if they do not bid (``rest``), and who not at all (``left_out``)."""
    route, query = pending.route, pending.query
    if route.is_plain and query.profile.hints is NO_HINTS and not query.tried and not query.refused:
        # The usual case: nothing is done for each candidate.
        kept = route.entries
    else:
        weighted = pending.strategy.is_weighted and route.has_zero_weight
        kept = _filter(pending, () if pending.is_full_round else query.refused, weighted)
    if len(kept) <= fanout:
        return kept
    strategy, winner = pending.strategy, pending.memory.winner
    first = strategy.narrow(kept, pending.memory, rng, fanout)
    chosen = {entry.id for entry in first}
    if strategy.keeps_winner and winner and winner not in chosen:
        place = route.places.get(winner)
        if place is not None and (kept is route.entries or route.entries[place] in kept):
            chosen.discard(first[-1].id)
            first[-1] = route.entries[place]
            chosen.add(winner)
    pending.rest = tuple(entry for entry in kept if entry.id not in chosen)
    return in_place(pending, first)


def _filter(pending: Pending, refused: tuple[str, ...], weighted: bool) -> tuple[Entry, ...]:
    query, hints = pending.query, pending.query.profile.hints
    kept: list[Entry] = []
    left_out = [LeftOut(provider, Exclusion.PIN) for provider in pending.route.pinned_out]
    for entry in pending.route.entries:
        missing = [tag for tag in hints.tags if tag not in entry.tags]
        if entry.id in query.tried:
            left_out.append(LeftOut(entry.id, Exclusion.TRIED))
        elif entry.id in refused:
            left_out.append(LeftOut(entry.id, Exclusion.REFUSED))
        elif entry.id in hints.exclude:
            left_out.append(LeftOut(entry.id, Exclusion.EXCLUDED))
        elif missing:
            left_out.append(LeftOut(entry.id, Exclusion.TAGS, f"lacks {', '.join(missing)}"))
        elif weighted and entry.spec.weight == 0:
            left_out.append(LeftOut(entry.id, Exclusion.WEIGHT_ZERO))
        else:
            kept.append(entry)
    pending.left_out = tuple(left_out)
    return tuple(kept)


def in_place(pending: Pending, entries: list[Entry]) -> tuple[Entry, ...]:
    """``entries`` in the order of their definition, so that nothing depends on the order of a sample."""
    names = {entry.id for entry in entries}
    return tuple(entry for entry in pending.route.entries if entry.id in names)


@dataclass(slots=True)
class Offers:
    """Bids that can be taken, by tier, each in the order of definition."""

    ready: list[Bid]
    unhealthy: list[Bid]
    """Asked when no healthy one can take the call."""
    full: list[Bid]
    """What room they had is promised to others by open plans."""


def all_ready(pending: Pending, answers: tuple[Bid | NoBid, ...], planned: dict[str, int]) -> list[Bid] | None:
    """The bids, as ``offers`` would find them ready, if all who have the model were asked and bid and can take the call.

    That is the usual case; None: it is another one, and ``offers`` sees to it. Requests with hints are not for this.
    """
    route = pending.route
    if pending.asked is not route.entries or len(answers) != len(pending.asked):
        return None
    places = route.places
    ready: list[Any] = list(answers)
    for answer in answers:
        if type(answer) is not Bid or not answer.healthy:
            return None
        bid = answer
        if planned and (count := planned.get(bid.provider)):
            bid = with_plans(bid, count)
        room = bid.room
        if room is not None and room <= 0:
            return None
        ready[places[bid.provider]] = bid
    return ready


def offers(pending: Pending, planned: dict[str, int], held: list[str]) -> Offers:
    """Sort the bids of the fan-out that has come home; note in ``barred`` those that cannot be taken.

    ``planned`` are the open plans by provider, ``held`` the providers for which earlier requests wait.
    """
    found = Offers([], [], [])
    ceiling = pending.query.profile.hints.max_cost_usd
    answers = pending.by_provider()
    for entry in pending.asked:
        bid = answers.get(entry.id)
        if type(bid) is not Bid:
            continue
        if ceiling is not None and (bid.cost_usd is None or bid.cost_usd > ceiling):
            pending.bar(bid.provider, Exclusion.MAX_COST)
            continue
        if held and bid.provider in held:
            pending.bar(bid.provider, Exclusion.WAITERS_AHEAD)
            continue
        count = planned.get(bid.provider)
        if count:
            bid = with_plans(bid, count)
        if bid.room is not None and bid.room <= 0:
            found.full.append(bid)
        elif bid.healthy:
            found.ready.append(bid)
        else:
            found.unhealthy.append(bid)
    return found


def rank(pending: Pending, found: Offers, ask: Ask, rng: Random) -> Ranked:
    """Rank tier by tier. A preferred provider goes first in its tier: a preference, not a cage."""
    strategy, memory = pending.strategy, pending.memory
    prefer = ask.profile.hints.prefer
    ranked: Ranked = []
    for tier in (found.ready, found.unhealthy, found.full):
        if tier:
            part = strategy.rank(tier, ask, memory, rng)
            if prefer:
                part.sort(key=lambda pair: pair[1].provider != prefer)
            ranked += part
    return ranked


def with_plans(bid: Bid, count: int) -> Bid:
    """The bid as it would be if ``count`` open plans had reached the provider already.

    They count as calls in flight, take room, and, beyond eight calls or those it had when it bid, stretch the expected time
    as the soft queue term of the policy does.
    """
    expected_s = bid.expected_s
    knee = bid.in_flight + 1
    if knee < _KNEE:
        knee = _KNEE
    beyond = bid.in_flight + 1 + count - knee
    if beyond > 0:
        expected_s *= 1.0 + _PRESSURE * (beyond / knee)
    return Bid(
        bid.provider,
        bid.in_flight + count,
        None if bid.room is None else bid.room - count,
        bid.weight,
        bid.priority,
        bid.samples,
        bid.latency_p50_s,
        bid.latency_p95_s,
        bid.latency_ewma_s,
        expected_s,
        bid.cost_usd,
        bid.failure_p,
        bid.failure_loss_s,
        bid.cut_p,
        bid.health,
        bid.healthy,
        bid.trial,
        bid.exploring + count if bid.samples <= 0 else bid.exploring,
        bid.successes,
        bid.failures,
        bid.tokens,
        bid.latency_peak_s,
        bid.tokens_per_s,
        bid.surplus,
    )
