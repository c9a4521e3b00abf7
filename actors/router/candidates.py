"""Who is asked, and who of those that bid can be taken: the stages of a decision before its strategy."""

from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from random import Random
from typing import cast

from actors.router.pending import Pending
from actors.router.plans import OpenPlans
from actors.router.policy import Policy
from actors.router.strategies.base import Ask, Ranked
from actors.router.strategies.guard import guarded, guarded_narrow
from actors.router.table import Entry
from messages.routing import NO_HINTS, Bid, Exclusion, LeftOut, NoBid, NoBidReason

_KNEE = 8
"""Calls a provider is thought to serve side by side before one slows the other, until it shows otherwise."""
_PRESSURE = 0.9
"""Weight of queueing that is only feared: soft 0.3 × wait weight 3 (docs/routing.md)."""
_NUMBER = attrgetter("number")
_NOBODY: Ranked = []


def select(pending: Pending, policy: Policy, fanout: int, planned: OpenPlans, rng: Random) -> tuple[Entry, ...]:
    """Say who is asked first; note who may be asked if they do not bid (``kept``), and who not at all (``left_out``)."""
    course, query = pending.course, pending.query
    if course.is_plain and not query.tried and not query.refused:
        # The usual case: nothing is done for each candidate.
        kept = course.entries
    else:
        kept = _filter(pending, () if pending.is_full_round else query.refused)
    pending.kept = kept
    if len(kept) <= fanout:
        pending.seen = len(kept)
        return kept
    memory = pending.memory
    memory.freshen(pending.began_at, memory.winner in planned)
    is_as_before = memory.asked_of is kept and not memory.fresh and course.is_plain
    if is_as_before and not pending.home and not pending.strategy.is_foreign:
        asked = memory.asked
    else:
        asked = in_place(_sample(pending, policy, fanout, rng))
    pending.seen = len(asked)
    return asked


def _sample(pending: Pending, policy: Policy, count: int, rng: Random) -> list[Entry]:
    """Of more candidates than are asked at once, those to ask first: whom policy and request put first, then by strategy."""
    course, group = pending.course, pending.kept
    sure: list[Entry] = []
    if not course.is_plain and (course.chain is not None or course.outside or _prefers(pending)):
        for _, level in groupby(sorted(group, key=lambda entry: _level(pending, entry)), lambda entry: _level(pending, entry)):
            group = tuple(level)
            if len(sure) + len(group) > count:
                break
            sure += group
    left = count - len(sure)
    if course.chain is not None or not left:
        return [*sure, *group[:left]]
    return [*sure, *_drawn(pending, policy, group, left, rng)]


def _level(pending: Pending, entry: Entry) -> tuple[bool, int, int, bool, int]:
    """Of two candidates the one with the lower level is asked first, whatever the strategy says."""
    course = pending.course
    step = 0 if course.chain is None else course.chain.place(entry.id) or 0
    return entry.id in course.outside, *_preference(pending, entry.id), step


def _drawn(pending: Pending, policy: Policy, kept: tuple[Entry, ...], count: int, rng: Random) -> list[Entry]:
    """Of ``kept``, which are more than ``count``, those to ask first by the strategy."""
    strategy, memory, course = pending.strategy, pending.memory, pending.course
    order, pending.failure = policy.order(course)
    if kept is not course.entries:
        places = {entry.id for entry in kept}
        order = [entry for entry in order if entry.id in places]
    leaders = memory.ranking if strategy.keeps_leaders else _NOBODY
    if leaders and kept is not pending.route.entries:
        allowed = {entry.id for entry in kept}
        leaders = [pair for pair in leaders if pair[1].provider in allowed]
    wanted = max(1, count // 4, count - len(leaders)) if leaders else count
    if strategy.is_foreign:
        first, why = guarded_narrow(strategy, order, memory, rng, wanted)
        pending.failure = pending.failure or why
    else:
        first = strategy.narrow(order, memory, rng, wanted)
    names = {entry.id for entry in first}
    if leaders:
        _lead(pending, leaders, first, names, count)
    winner = memory.winner
    if strategy.keeps_winner and winner and winner not in names and (place := pending.route.places.get(winner)) is not None:
        entry = pending.route.entries[place]
        if kept is pending.route.entries or entry in kept:
            first[-1] = entry
    if pending.home and pending.home not in [entry.id for entry in first]:
        first[:1] = [entry for entry in kept if entry.id == pending.home] or first[:1]
    return first


def _lead(pending: Pending, leaders: Ranked, first: list[Entry], names: set[str], count: int) -> None:
    """Fill ``first`` up to ``count`` with the best of the last sample. ``names``: who is in it."""
    places, entries = pending.route.places, pending.route.entries
    # Whoever is drawn and leads leaves a place to one more leader.
    for _score, bid in leaders:  # Named, or compiled it would be made an object.
        if len(first) >= count:
            return
        name = bid.provider
        if name not in names and (place := places.get(name)) is not None:
            first.append(entries[place])
            names.add(name)


def remember(pending: Pending, ranked: Ranked) -> None:
    """Note who was chosen; where a sample was asked, who was best in it, and who it was."""
    memory, asked, kept = pending.memory, pending.asked, pending.kept
    memory.note(ranked[0][1].provider, pending.strategy.counts_turns)
    if len(asked) == len(kept):
        return
    if pending.strategy.keeps_leaders:
        memory.ranking = ranked
    if not pending.strategy.is_by_turn and len(asked) == pending.seen == len(ranked) and pending.course.is_plain:
        if memory.asked is not asked:
            memory.asked, memory.asked_of, memory.asked_refs = asked, kept, None
    else:
        memory.asked = memory.asked_of = ()


def next_batch(pending: Pending, policy: Policy, count: int) -> tuple[Entry, ...]:
    """Those to ask next, for nobody asked so far can take the call; none of them lacks what it needs. Empty: nobody is left."""
    if pending.seen >= len(pending.kept):
        return ()
    pending.leave_out_unable()
    answered, may_be_asked = pending.by_provider(), {entry.id for entry in pending.kept}
    order, _ = policy.order(pending.course)
    others = [entry for entry in order if entry.id in may_be_asked and entry.id not in answered]
    others.sort(key=lambda entry: _level(pending, entry))
    found = in_place(others[:count])
    pending.seen += len(found)
    return found


def _filter(pending: Pending, refused: tuple[str, ...]) -> tuple[Entry, ...]:
    """Leave out candidates, each by the first stage that has a reason."""
    course, query, hints = pending.course, pending.query, pending.query.profile.hints
    barred, tried = course.barred, query.tried
    kept: list[Entry] = []
    left_out = [LeftOut(provider, Exclusion.PIN) for provider in pending.route.pinned_out]
    for entry in pending.route.entries:
        provider = entry.id
        missing = [tag for tag in hints.tags if tag not in entry.tags]
        if provider in tried:
            left_out.append(LeftOut(provider, Exclusion.TRIED))
        elif provider in refused:
            left_out.append(LeftOut(provider, Exclusion.REFUSED))
        elif provider in hints.exclude:
            left_out.append(LeftOut(provider, Exclusion.EXCLUDED))
        elif missing:
            left_out.append(LeftOut(provider, Exclusion.TAGS, f"lacks {', '.join(missing)}"))
        elif provider in barred:
            left_out.append(barred[provider])
        elif entry.spec.weight == 0 and course.chooser(provider).is_weighted:
            left_out.append(LeftOut(provider, Exclusion.WEIGHT_ZERO))
        else:
            kept.append(entry)
    pending.left_out = tuple(left_out)
    return course.entries if len(kept) == len(course.entries) else tuple(kept)


def in_place(entries: list[Entry]) -> tuple[Entry, ...]:
    """``entries`` in the order of their definition, so that nothing depends on the order of a sample."""
    entries.sort(key=_NUMBER)
    return tuple(entries)


READY, UNHEALTHY, OUTSIDE, OUTSIDE_UNHEALTHY, FULL = 0, 1, 2, 3, 4
"""Tiers: an unhealthy provider is asked when no healthy one can take the call, one a rule does not name when none of those it
names can, and one whose room is promised to open plans last."""


@dataclass(slots=True)
class Offers:
    """Bids that can be taken, by tier, each in the order of definition."""

    tiers: tuple[list[Bid], ...]

    def __bool__(self) -> bool:
        return any(self.tiers)


def all_ready(pending: Pending, answers: tuple[Bid | NoBid, ...]) -> list[Bid] | None:
    """The bids, as ``offers`` would find them ready, if nobody who has the model was left out and all asked can take the call.

    That is the usual case; None: it is another one, and ``offers`` sees to it. Requests with hints are not for this.
    """
    route, asked = pending.route, pending.asked
    if pending.kept is not route.entries or not len(asked) == len(answers) == len(pending.answers):
        return None
    is_weighted = pending.strategy.is_weighted
    # All at once, and those in place of which there is another one later: compiled, to append one costs 50 instructions.
    ready = cast(list[Bid], list(answers))
    for place, answer in enumerate(answers):
        if type(answer) is not Bid or not answer.healthy or (is_weighted and not answer.weight):
            return None
        bid, entry = answer, asked[place]
        # Answers come in the order of asking; that the very name is there is seen at a glance.
        if bid.provider is not entry.id and bid.provider != entry.id:
            return None
        if entry.tally.count:
            ready[place] = bid = with_plans(bid, entry.tally.count)
        room = bid.room
        if room is not None and room <= 0:
            return None
    return ready


def offers(pending: Pending, planned: OpenPlans, held: list[str]) -> Offers:
    """Sort the bids of the fan-out that has come home; note in ``barred`` those that cannot be taken.

    ``planned`` are the open plans, ``held`` the providers for which earlier requests wait.
    """
    found = Offers(([], [], [], [], []))
    course = pending.course
    answers = pending.by_provider()
    behind = () if course.spills else _behind_limits(pending)
    for entry in pending.asked:
        bid = answers.get(entry.id)
        if type(bid) is not Bid:
            continue
        reason, detail = _bar(pending, bid)
        if not bid.weight and course.chooser(bid.provider).is_weighted:
            # The table knew of another weight when it was asked: a new configuration is on its way.
            reason = Exclusion.WEIGHT_ZERO
        is_outside = bid.provider in course.outside
        if reason is None and course.selective is not None and not is_outside and not course.suits(bid):
            is_outside = course.allow_fallback
            reason = None if is_outside else Exclusion.RULE
            detail = f"rule {course.rule}"
        if reason is None and bid.provider in behind:
            reason = Exclusion.LIMIT_AHEAD
        if reason is None and held and bid.provider in held:
            reason = Exclusion.WAITERS_AHEAD
        if reason is not None:
            pending.bar(bid.provider, reason, detail)
            continue
        count = planned.of(bid.provider)
        if count:
            bid = with_plans(bid, count)
        tier = OUTSIDE if is_outside else READY
        if bid.room is not None and bid.room <= 0:
            tier = FULL
        elif not bid.healthy:
            tier += 1
        found.tiers[tier].append(bid)
    return found


def _behind_limits(pending: Pending) -> frozenset[str]:
    """Candidates that policy puts after one that is at its rate limit, or has just refused an award."""
    limited = pending.refused_by()
    limited += [
        provider
        for provider, answer in pending.by_provider().items()
        if type(answer) is NoBid and answer.reason == NoBidReason.RATE_LIMITED
    ]
    if not limited:
        return frozenset()
    places = pending.course.precedence()
    first = min((places[provider] for provider in limited if provider in places), default=None)
    return frozenset(provider for provider, place in places.items() if first is not None and place > first)


def over_ceiling(pending: Pending, bid: Bid) -> bool:
    """Whether a bid is dearer, or known to be slower, than its request allows."""
    return _bar(pending, bid)[0] is not None


def _bar(pending: Pending, bid: Bid) -> tuple[Exclusion | None, str]:
    """Why a bid is over a ceiling of the request, in words too. What is not known yet is under those of time."""
    ceiling, hints = pending.course.ceiling_usd, pending.query.profile.hints
    if ceiling is not None and (bid.cost_usd is None or bid.cost_usd > ceiling):
        price = "price unknown" if bid.cost_usd is None else f"{bid.cost_usd:.6f} USD"
        return Exclusion.MAX_COST, f"{price}, ceiling {ceiling:g} USD"
    if hints is NO_HINTS:
        return None, ""
    latency_s, rate = hints.max_latency_s, hints.tokens_per_s
    if latency_s is not None and bid.samples > 0 and bid.latency_p50_s > latency_s:
        return Exclusion.MAX_LATENCY, f"median {bid.latency_p50_s * 1e3:.0f} ms, target {latency_s * 1e3:g} ms"
    if rate is not None and 0 < bid.tokens_per_s < rate:
        return Exclusion.THROUGHPUT, f"{bid.tokens_per_s:.0f} tokens/s, target {rate:g}"
    return None, ""


def rank(pending: Pending, found: Offers, ask: Ask, rng: Random) -> Ranked:
    """Rank tier by tier, in each step by step of the chain.

    Whom request, tenant, region and zone prefer goes first in its tier: a preference, not a cage. The strategy that has chosen
    the winner is the query's from here on.
    """
    chain, steps = pending.course.chain, pending.course.steps
    is_partial = _prefers(pending)
    ranked: Ranked = []
    for tier in found.tiers:
        part: Ranked = []
        if chain is None:
            part = ranked_by(pending, tier, ask, rng) if tier else []
        else:
            for place, bids in chain.split(tier):
                pending.strategy, pending.memory = steps[place].strategy, steps[place].memory
                part += ranked_by(pending, bids, ask, rng)
        if is_partial:
            part.sort(key=lambda pair: _preference(pending, pair[1].provider))
        ranked += part
    if chain is not None:
        winner = steps[chain.place(ranked[0][1].provider) or 0]
        pending.strategy, pending.memory = winner.strategy, winner.memory
    return ranked


def _prefers(pending: Pending) -> bool:
    """Whether request or tenant prefer somebody."""
    hints = pending.query.profile.hints
    return bool(pending.course.preferred or hints.regions or hints.zone)


def _preference(pending: Pending, provider: str) -> tuple[int, int, bool]:
    """The least comes first: named by request or tenant; then in a region asked for (first in the zone); then in the zone."""
    preferred, hints = pending.course.preferred, pending.query.profile.hints
    place = preferred.index(provider) if provider in preferred else len(preferred)
    spec = pending.route.entries[pending.route.places[provider]].spec
    regions = hints.regions
    region = regions.index(spec.region) if spec.region in regions else len(regions)
    return place, region, bool(hints.zone) and spec.zone != hints.zone


def ranked_by(pending: Pending, bids: list[Bid], ask: Ask, rng: Random) -> Ranked:
    """The ranking of the query's strategy. One of somebody else's making that fails is replaced by ``first``."""
    strategy = pending.strategy
    if not strategy.is_foreign:
        return strategy.rank(bids, ask, pending.memory, rng)
    ranked, why = guarded(strategy, bids, ask, pending.memory, rng)
    if why:
        pending.failure = why
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
        bid.overdue_s,
        bid.overdue_early_s,
        bid.tight,
        bid.unheard_s,
        bid.slowness,
        bid.likely_usd,
        bid.strain_s,
        bid.prefill_s,
    )
