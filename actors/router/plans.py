"""Open plans: those made and not yet seen granted, refused or withdrawn. They keep equal bids from herding.

A provider bids from what it has in flight; a plan that is on its way to it is not in that count yet. So the router adds
its own. Nothing can stay here for ever: a plan nobody claims is dropped ``STALE_S`` after it was made.
"""

from collections.abc import Container

from messages.base import acyclic

STALE_S = 10.0
"""A courier claims within milliseconds; after so long it never will."""


@acyclic
class Tally:
    """How many plans of a provider are open."""

    __slots__ = ("count", "provider")

    def __init__(self, provider: str = "") -> None:
        self.provider = provider
        self.count = 0


@acyclic
class _Open:
    """The plan of a query, and when it was made."""

    __slots__ = ("made_at", "tally")

    def __init__(self, tally: Tally, made_at: float) -> None:
        self.tally = tally
        self.made_at = made_at


class OpenPlans:
    """Which query's plan goes to which provider, and how many each provider has."""

    __slots__ = ("by_query", "tallies")

    def __init__(self) -> None:
        self.by_query: dict[str, _Open] = {}
        """To be looked at, not changed."""
        self.tallies: dict[str, Tally] = {}
        """By provider, to be looked at. One that came to nothing stays until ``keep_only``, for the table refers to it."""

    def __len__(self) -> int:
        return len(self.by_query)

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

    def open(self, query_id: str, provider: str, now: float) -> None:
        """Note the plan of a query, in place of an earlier one."""
        if query_id in self.by_query:
            self.close(query_id)
        tally = self.tally(provider)
        tally.count += 1
        self.by_query[query_id] = _Open(tally, now)

    def close(self, query_id: str) -> str:
        """Forget the plan of a query; returns its provider, or an empty string if there was none."""
        plan = self.by_query.get(query_id)
        if plan is None:
            return ""
        del self.by_query[query_id]
        tally = plan.tally
        tally.count -= 1
        return tally.provider

    def sweep(self, now: float) -> list[str]:
        """Drop what is stale; returns the providers concerned."""
        stale = [query_id for query_id, plan in self.by_query.items() if now - plan.made_at >= STALE_S]
        return [self.close(query_id) for query_id in stale]

    def keep_only(self, providers: Container[str]) -> None:
        """Forget providers that are gone, but for those that have open plans yet."""
        self.tallies = {name: tally for name, tally in self.tallies.items() if tally.count or name in providers}

    def fault(self) -> str | None:
        """None while the counts are the sums they stand for."""
        sums: dict[str, int] = {}
        for plan in self.by_query.values():
            sums[plan.tally.provider] = sums.get(plan.tally.provider, 0) + 1
        return None if sums == self.counts else f"open plans {sums} are counted as {self.counts}"
