"""Affinity: a conversation stays with whoever has the beginning of its prompt in its cache, as long as that is no worse.

Owns: who was planned for the prompts seen of late, by what they begin with (``RequestProfile.affinity``) and model.
Always: a preference, not a cage. It moves to the front only who bid, is healthy, in the first tier and has not failed the same
request; where the request or its tenant says whom it prefers, that goes first; a provider that would take over twice the time
of the quickest is passed by, and whoever is planned instead is the conversation's home from then on. No more than ``HOMES_MAX``
are kept.

Providers bill the cached part of a prompt at a fraction and read it at once, so a conversation that is spread evenly pays for
its whole past at every turn.
"""

from collections import OrderedDict

from actors.router.pending import Pending
from actors.router.strategies.base import Ranked
from messages.control import AffinitySpec

HOMES_MAX = 10_000
ORDERED = frozenset({"first", "priority", "cost"})
"""Strategies whose order is the point of them: no conversation changes it."""
SPILL = 2.0
"""Times the expected time of the quickest that a conversation's own provider may take."""


class Affinity:
    """The homes of conversations. Times in monotonic seconds."""

    __slots__ = ("_homes",)

    def __init__(self) -> None:
        # Not a plain dict: the first of it is found by going past all that left before.
        self._homes: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()
        """Provider and when it was planned last, the oldest first."""

    def __len__(self) -> int:
        return len(self._homes)

    def home_of(self, key: str, model: str, spec: AffinitySpec, now: float) -> str:
        """Who has what a prompt begins with; an empty string: nobody."""
        found = self._homes.get((key, model)) if spec.enabled else None
        return found[0] if found is not None and now - found[1] <= spec.ttl_s else ""

    def settle(self, pending: Pending, ranked: Ranked, spec: AffinitySpec, now: float) -> Ranked:
        """The ranking with the home in front, if it may be; whoever is there is the home from now on."""
        if not spec.enabled or pending.strategy.name in ORDERED or pending.course.chain:
            return ranked
        if pending.home and pending.home != ranked[0][1].provider:
            ranked = self._with_home_first(pending, ranked)
        if not pending.is_dry:
            pair = (pending.query.profile.affinity, pending.route.model)
            self._homes.pop(pair, None)
            self._homes[pair] = (ranked[0][1].provider, now)
            if len(self._homes) > HOMES_MAX:
                self._homes.popitem(last=False)
        return ranked

    def _with_home_first(self, pending: Pending, ranked: Ranked) -> Ranked:
        home, course, hints = pending.home, pending.course, pending.query.profile.hints
        place = next((place for place, (_, bid) in enumerate(ranked) if bid.provider == home), None)
        if place is None or course.preferred or hints.regions or hints.zone or home in course.outside:
            return ranked
        bid = ranked[place][1]
        if not bid.healthy or bid.trial or (bid.room is not None and bid.room <= 0):
            return ranked
        quickest_s = min((other.expected_s for _, other in ranked if other.samples > 0), default=bid.expected_s)
        if bid.samples > 0 and bid.expected_s > SPILL * quickest_s:
            pending.remark = f"{home} has the beginning of this prompt, but would take {bid.expected_s:.2f} s"
            return ranked
        pending.remark = f"stays with {home}, which has the beginning of this prompt"
        return [ranked[place], *ranked[:place], *ranked[place + 1 :]]
