"""A pool's failover chain: who is asked first, who when nobody of those can take the call, and so on (FEATURES D8).

Owns: nothing that changes but the memory of each step's strategy. A chain is built from one ``ConfigSnapshot``.
Always: a provider belongs to the first step that names it, or to the step for everybody whom none names; who belongs to no
step is no candidate. Health goes before the chain, for an unhealthy provider is asked when no healthy one can take the call.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from actors.router.strategies.base import Memory, Ranked, Strategy
from messages.policy import ChainStep
from messages.routing import Bid


@dataclass(slots=True, eq=False)
class Step:
    """One step as a request meets it: the strategy that chooses within it, and what that remembers."""

    strategy: Strategy
    memory: Memory = field(default_factory=Memory)


class Chain:
    """The failover chain of one pool."""

    __slots__ = ("_otherwise", "_places", "_specs", "_steps")

    def __init__(self, specs: Sequence[ChainStep]) -> None:
        self._specs = tuple(specs)
        self._places: dict[str, int] = {}
        self._otherwise: int | None = None
        for place, spec in enumerate(specs):
            for provider in spec.providers:
                self._places.setdefault(provider, place)
            if not spec.providers and self._otherwise is None:
                self._otherwise = place
        self._steps: dict[tuple[str, bool], tuple[Step, ...]] = {}
        """By the course's strategy and whether it goes before the steps' own. Bounded by the strategies there are."""

    def place(self, provider: str) -> int | None:
        """The step a provider belongs to, from 0; None: it is no candidate."""
        return self._places.get(provider, self._otherwise)

    def steps(self, strategy: Strategy, is_said: bool, by_name: Callable[[str], Strategy | None]) -> tuple[Step, ...]:
        """The steps under a course's ``strategy``, which goes before the steps' own if it ``is_said`` more narrowly."""
        found = self._steps.get((strategy.name, is_said))
        if found is None:
            own = (strategy if is_said else by_name(spec.strategy) or strategy for spec in self._specs)
            found = tuple(Step(self._within(place, chosen)) for place, chosen in enumerate(own))
            self._steps[strategy.name, is_said] = found
        return found

    def split(self, bids: Iterable[Bid]) -> list[tuple[int, list[Bid]]]:
        """Bids by the step they belong to, in the order of the chain; steps without one are left out."""
        by_place: dict[int, list[Bid]] = {}
        for bid in bids:
            by_place.setdefault(self.place(bid.provider) or 0, []).append(bid)
        return sorted(by_place.items())

    def _within(self, place: int, strategy: Strategy) -> Strategy:
        """``strategy``, told only what became of its own step: who was not up for choice has not lost."""
        learn = strategy.learn
        if learn is None:
            return strategy

        def learn_own(memory: Memory, ranked: Ranked) -> None:
            learn(memory, [(score, bid) for score, bid in ranked if self.place(bid.provider) == place])

        return replace(strategy, learn=learn_own)
