"""Strategies by weight: ``weighted`` (FEATURES A5), ``smooth_weighted_round_robin`` (D3), ``weighted_random``.

A provider of weight 0 takes nothing. Beyond ``routing.fanout`` candidates: ``weighted`` asks a window that begins where the
counter stands, exact while all bid; ``weighted_random`` is exact in its winner whatever the weights, if those asked bid;
``smooth_weighted_round_robin`` is so in the mean, and up to the spread of the samples' total weights.
"""

from math import log
from operator import itemgetter
from random import Random

from actors.router.strategies.base import Ask, Memory, Ranked, Strategy
from actors.router.strategies.narrowing import by_weight, sampled_by_weight, turn_by_weight
from messages.routing import Bid

_SCORE = itemgetter(0)
_UNFINISHED, _FRESH, _SPENT = range(3)


def rank_weighted(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Each in its turn as many calls in a row as its weight says, then the next. Score: the position, from 0.

    With a constant set of bids this is the counter modulo the total weight, and the fall-back chain follows cyclically. A
    counter would starve somebody when the set changes in step with it. So there are rounds, and in each a provider has its
    weight in calls: whoever is in the midst of these goes first, then who still has all of them, longest unserved first. A
    round ends when no bidder has any left. So whoever always bids gets its whole weight in every round.
    """
    served, used, began = memory.served, memory.credits, memory.mark
    keyed = []
    for position, bid in enumerate(bids):
        weight, provider = bid.weight, bid.provider
        if weight <= 0:
            continue
        last = served.get(provider, 0)
        spent = used.get(provider, 0.0) if last > began else 0.0
        stage = _FRESH if spent == 0.0 else _UNFINISHED if spent < weight else _SPENT
        keyed.append((stage, last, position, bid))
    keyed.sort()
    return [(float(place), key[3]) for place, key in enumerate(keyed)]


def learn_weighted(memory: Memory, ranked: Ranked) -> None:
    """Count the winner's calls of this round; the round ends where the first in turn has none left.

    A winner with another score than 0 was preferred to the first in turn: it counts, but ends no round. Where several are
    preferred and none of them has any left, they begin anew among themselves.
    """
    if not ranked:
        return
    score, bid = ranked[0]
    provider, credits = bid.provider, memory.credits
    spent = credits.get(provider, 0.0) if memory.served.get(provider, 0) > memory.mark else 0.0
    if spent >= bid.weight:
        if score == 0.0:
            memory.mark = memory.turn
            spent = 0.0
        elif len(peers := _peers(ranked)) > 1:
            for _, peer in peers:
                credits[peer.provider] = 0.0
            spent = 0.0
    credits[provider] = spent + 1.0


def rank_smooth(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Highest credit first, once each has got its weight in credit; definition order among equals. Score: that, negated.

    The winner pays the total weight (``learn_smooth``), so that each wins in proportion to its weight, spread as evenly as
    can be: 5/1/1 gives a a b a c a a. Source: smooth weighted round robin of nginx (2012). Credit is clamped to what a
    constant set of bids can never reach, −total and total × bidders: nobody can save up, or owe, more than a few turns while
    others come and go or weights change.
    """
    credits = memory.credits
    total = float(_total(bids))
    most = total * len(bids)
    ranked: Ranked = []
    for bid in bids:
        weight = bid.weight
        if weight > 0:
            credit = credits.get(bid.provider, 0.0)
            if credit > most:
                credit = most
            elif credit < -total:
                credit = -total
            ranked.append((-(credit + weight), bid))
    ranked.sort(key=_SCORE)
    return ranked


def learn_smooth(memory: Memory, ranked: Ranked) -> None:
    """Give each what its score says, and let the winner pay.

    Only those take part who lost to the winner by credit. Bids of a lower tier did not, nor those that were passed over for
    a preference: if they saved up credit meanwhile, the rest of the traffic would leave its shares.
    """
    if not ranked:
        return
    peers, credits, total = _peers(ranked), memory.credits, 0
    for score, bid in peers:
        credits[bid.provider] = -score
        total += bid.weight
    credits[peers[0][1].provider] -= total


def rank_weighted_random(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """At random in proportion to weight, the fall-back chain too. Score: −ln(u) ÷ weight with u uniform in (0, 1].

    The smallest of such exponentials is a provider's with probability weight ÷ sum of weights, and so on among the others:
    Efraimidis & Spirakis, *Weighted random sampling with a reservoir* (2006).
    """
    draw = rng.random
    ranked = [(-log(1.0 - draw()) / bid.weight, bid) for bid in bids if bid.weight > 0]
    ranked.sort(key=_SCORE)
    return ranked


def _total(bids: list[Bid]) -> int:
    total = 0
    for bid in bids:
        if bid.weight > 0:
            total += bid.weight
    return total


def _peers(ranked: Ranked) -> Ranked:
    """The winner and those behind it for their score: as long as scores do not fall, health and room being the same.

    The router ranks tier by tier and puts preferred bids first in each, so a falling score tells where another reason begins.
    """
    before, winner = ranked[0]
    is_healthy, is_full = winner.healthy, _is_full(winner)
    count = 0
    for score, bid in ranked:
        if score < before or bid.healthy != is_healthy or _is_full(bid) != is_full:
            break
        before = score
        count += 1
    return ranked[:count]


def _is_full(bid: Bid) -> bool:
    return bid.room is not None and bid.room <= 0


WEIGHTED = Strategy(
    "weighted",
    rank_weighted,
    turn_by_weight,
    keeps_winner=False,
    index=by_weight,
    learn=learn_weighted,
    is_by_turn=True,
    is_weighted=True,
)
SMOOTH_WEIGHTED_ROUND_ROBIN = Strategy(
    "smooth_weighted_round_robin",
    rank_smooth,
    sampled_by_weight,
    keeps_winner=False,
    index=by_weight,
    learn=learn_smooth,
    is_weighted=True,
)
WEIGHTED_RANDOM = Strategy(
    "weighted_random", rank_weighted_random, sampled_by_weight, keeps_winner=False, index=by_weight, is_weighted=True
)
