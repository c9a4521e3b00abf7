"""Open plans: those made and not yet seen granted, refused or withdrawn. They keep equal bids from herding.

A provider bids from what it has in flight; a plan that is on its way to it is not in that count yet. So the router adds
its own. Nothing can stay here for ever: a plan nobody claims is dropped ``STALE_S`` after it was made.
"""

from collections.abc import Container

from actors.router.pending import Pending
from actors.router.tally import Tally

STALE_S = 10.0
"""A courier claims within milliseconds; after so long it never will."""


class OpenPlans:
    """Which query's plan goes to which provider, and how many each provider has."""

    __slots__ = ("_count", "by_query", "tallies")

    def __init__(self) -> None:
        self.by_query: dict[str, Pending] = {}
        """The router's queries that are open, as it puts them there, and those whose plans are: these have a ``tally``."""
        self._count = 0
        self.tallies: dict[str, Tally] = {}
        """By provider, to be looked at. One that came to nothing stays until ``keep_only``, for the table refers to it."""

    def __len__(self) -> int:
        return self._count

    def __contains__(self, provider: object) -> bool:
        """Whether a provider has any."""
        return isinstance(provider, str) and self.of(provider) > 0

    @property
    def counts(self) -> dict[str, int]:
        """How many each provider has; those without any are not in it."""
        return {provider: tally.count for provider, tally in self.tallies.items() if tally.count}

    def of(self, provider: str) -> int:
        """How many of them go to a provider."""
        tally = self.tallies.get(provider)
        return 0 if tally is None else tally.count

    def tally(self, provider: str) -> Tally:
        """The one of a provider, which stays the same while it is kept."""
        tally = self.tallies.get(provider)
        if tally is None:
            tally = self.tallies[provider] = Tally(provider)
        return tally

    def open(self, pending: Pending, provider: str, now: float) -> None:
        """Note the plan of a query, which is in ``by_query`` and stays there until ``close``."""
        pending.tally = tally = self.tally(provider)
        pending.planned_at = now
        tally.count += 1
        self._count += 1

    def close(self, query_id: str) -> str:
        """Forget the plan of a query; returns its provider, or an empty string if there was none."""
        pending = self.by_query.get(query_id)
        tally = None if pending is None else pending.tally
        if pending is None or tally is None:
            return ""
        del self.by_query[query_id]
        pending.tally = None
        tally.count -= 1
        self._count -= 1
        return tally.provider

    def sweep(self, now: float) -> list[str]:
        """Drop what is stale; returns the providers concerned."""
        found = self.by_query.items()
        stale = [query_id for query_id, one in found if one.tally is not None and now - one.planned_at >= STALE_S]
        return [self.close(query_id) for query_id in stale]

    def keep_only(self, providers: Container[str]) -> None:
        """Forget providers that are gone, but for those that have open plans yet."""
        self.tallies = {name: tally for name, tally in self.tallies.items() if tally.count or name in providers}

    def fault(self) -> str | None:
        """None while the counts are the sums they stand for."""
        sums: dict[str, int] = {}
        for pending in self.by_query.values():
            if pending.tally is not None:
                provider = pending.tally.provider
                sums[provider] = sums.get(provider, 0) + 1
        if sum(sums.values()) != self._count:
            return f"open plans {sums} are counted as {self._count}"
        return None if sums == self.counts else f"open plans {sums} are counted as {self.counts}"
