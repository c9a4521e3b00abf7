"""``adaptive``, the default: least expected loss, in seconds.

    C = expected_s + strain_s + λ · likely_usd
    V = (1 − p) · C + p · (L + C'next) + [stream] · cut · penalty

``expected_s`` is the provider's own estimate of this request, its queue and slow spells included; ``strain_s`` what the last of
its rate limit is worth to those who come next; λ is
``routing.adaptive.seconds_per_usd``; p is the chance to fail before content, L the seconds a failure costs before it shows,
C'next the least C of the other bidders (the penalty where there is none, for then a failure is the client's), cut the
chance that a stream breaks after content. The admission wait of the policy's full form is 0 here, because a provider that
would make a request wait does not bid.

Among near-equals, those within 10 % of the least V, the one with the fewest calls in flight comes first, ties at random. The
count includes plans on their way (the router adds them), so that any number of equal requests at one moment spreads evenly:
taking the least of all is exact where the better of two drawn (Mitzenmacher, 2001) is so in the mean only, and costs no more.

The formula and its constants come from a simulation of thirteen scenarios against an oracle (docs/routing.md). Of its parts:
the fall-back's cost in V is our own; optimism towards the unknown follows UCB and Thompson sampling; load enters through
``expected_s`` by Little's law and the queue weights of C3 (NSDI 2015) and Prequal (NSDI 2024).
"""

from math import inf
from operator import itemgetter
from random import Random

from actors.router.strategies.base import Ask, Memory, Ranked, Strategy, sampled
from messages.routing import Bid

PENALTY_S = 10.0
"""What a request that fails its client costs."""
OPTIMISM = 0.7
"""An unknown provider with no exploring call counts as so much of the best known one, so that it is tried at all ..."""
CAUTION = 1.5
"""... and as so much of the mean of the known ones while one is under way: one at a time."""
NEAR = 1.1
"""Within 10 % of the best, bids are as good as equal."""
FEW = 6
"""So many bids at most are put in order one by one, which costs a fifth of sorting them; more are sorted."""
_VALUE = itemgetter(0)
_NO_GUESS: list[float] = []
"""Stays empty: to make a list costs as much as to look at three bids."""
_BLANK_S = 1.0
"""Stands for the known ones where there are none."""


def rank_adaptive(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    """Least V first; among near-equals the least loaded, ties at random. Score: V in seconds.

    An unknown price counts as the dearest known one. A provider without samples counts as 0.7 of the least C of those that
    have some, and as 1.5 of their mean while an exploring call is in flight there; where nobody has samples, price alone
    tells. (The simulated policy took 0.7 of the mean, and found who stayed unknown by hedged probes.)
    """
    seconds_per_usd, stream = ask.seconds_per_usd, ask.profile.stream
    least = runner_up = inf
    guessed = _NO_GUESS
    for bid in bids:
        if bid.likely_usd is None or bid.samples <= 0:
            guessed = _guessed_losses(bids, seconds_per_usd)
            least, runner_up = sorted([*guessed, inf])[:2]
            break
        loss = _loss(bid, seconds_per_usd)
        if loss < least:
            runner_up = least
            least = loss
        elif loss < runner_up:
            runner_up = loss
    if len(bids) == 1:
        runner_up = PENALTY_S
    ranked: Ranked = []
    highest = -inf
    is_in_order, are_few = True, len(bids) <= FEW
    for position, bid in enumerate(bids):
        # To work it out again costs less than to keep it in a list.
        loss = guessed[position] if guessed else _loss(bid, seconds_per_usd)
        p = bid.failure_p
        # Where another bid is as good as the best, the runner-up's loss is the least too: which is which need not be known.
        value = (1.0 - p) * loss + p * (bid.failure_loss_s + (runner_up if loss == least else least))
        if stream:
            value += bid.cut_p * PENALTY_S
        if value < highest:
            if are_few:
                _insert(ranked, value, bid)
                continue
            is_in_order = False
        highest = value
        ranked.append((value, bid))
    if not is_in_order:
        ranked.sort(key=_VALUE)
    limit = ranked[0][0] * NEAR
    near = 1
    while near < len(ranked) and ranked[near][0] <= limit:
        near += 1
    if near > 1:
        _spread(ranked, near, rng)
    return ranked


def _loss(bid: Bid, seconds_per_usd: float) -> float:
    """C of a bid of which everything is known."""
    usd = bid.likely_usd
    return bid.expected_s + bid.strain_s + seconds_per_usd * (0.0 if usd is None else usd)


def _insert(ranked: Ranked, value: float, bid: Bid) -> None:
    """Put a bid in its place behind its equals, in a short list whose last one is above it."""
    place = len(ranked) - 1
    while place and ranked[place - 1][0] > value:
        place -= 1
    ranked.insert(place, (value, bid))


def _guessed_losses(bids: list[Bid], seconds_per_usd: float) -> list[float]:
    """The same where something is unknown."""
    dearest = max((bid.likely_usd for bid in bids if bid.likely_usd is not None), default=0.0)
    prices = [seconds_per_usd * (dearest if bid.likely_usd is None else bid.likely_usd) for bid in bids]
    known = [bid.expected_s + bid.strain_s + price for bid, price in zip(bids, prices, strict=True) if bid.samples > 0]
    guess_idle = OPTIMISM * (min(known) if known else _BLANK_S)
    guess_busy = CAUTION * (sum(known) / len(known) if known else _BLANK_S)
    losses: list[float] = []
    for bid, price in zip(bids, prices, strict=True):
        if bid.samples > 0:
            losses.append(bid.expected_s + bid.strain_s + price)
        else:
            guess = guess_busy if bid.exploring > 0 else guess_idle
            losses.append(guess if known else guess + price)
    return losses


def _spread(ranked: Ranked, near: int, rng: Random) -> None:
    """Put the least loaded of the first ``near`` in front, one at random of several; the others keep their order."""
    chosen, count, least = 0, 1, ranked[0][1].in_flight
    for place in range(1, near):
        load = ranked[place][1].in_flight
        if load < least:
            chosen, count, least = place, 1, load
        elif load == least:
            count += 1
    if count > 1:
        others = int(rng.random() * count)
        while others:
            chosen += 1
            others -= ranked[chosen][1].in_flight == least
    if chosen:
        ranked.insert(0, ranked.pop(chosen))


ADAPTIVE = Strategy("adaptive", rank_adaptive, sampled, keeps_leaders=True, counts_turns=False)
