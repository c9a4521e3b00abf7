"""Open plans: those made and not yet seen granted, refused or withdrawn. They keep equal bids from herding.

A provider bids from what it has in flight; a plan that is on its way to it is not in that count yet. So the router adds
its own. Nothing can stay here for ever: a plan nobody claims is dropped ``STALE_S`` after it was made.
"""

STALE_S = 10.0
"""A courier claims within milliseconds; after so long it never will."""


class OpenPlans:
    """Which query's plan goes to which provider, and how many each provider has."""

    __slots__ = ("by_query", "counts")

    def __init__(self) -> None:
        self.by_query: dict[str, tuple[str, float]] = {}
        """Provider and when the plan was made, by query. To be looked at, not changed."""
        self.counts: dict[str, int] = {}
        """Open plans by provider; providers without any are not in it."""

    def __len__(self) -> int:
        return len(self.by_query)

    def open(self, query_id: str, provider: str, now: float) -> None:
        """Note the plan of a query, in place of an earlier one."""
        if query_id in self.by_query:
            self.close(query_id)
        self.by_query[query_id] = (provider, now)
        self.counts[provider] = self.counts.get(provider, 0) + 1

    def close(self, query_id: str) -> str:
        """Forget the plan of a query; returns its provider, or an empty string if there was none."""
        entry = self.by_query.get(query_id)
        if entry is None:
            return ""
        del self.by_query[query_id]
        provider = entry[0]
        left = self.counts[provider] - 1
        if left:
            self.counts[provider] = left
        else:
            del self.counts[provider]
        return provider

    def sweep(self, now: float) -> list[str]:
        """Drop what is stale; returns the providers concerned."""
        stale = [query_id for query_id, (_, made_at) in self.by_query.items() if now - made_at >= STALE_S]
        return [self.close(query_id) for query_id in stale]

    def fault(self) -> str | None:
        """None while the counts are the sums they stand for."""
        sums: dict[str, int] = {}
        for provider, _ in self.by_query.values():
            sums[provider] = sums.get(provider, 0) + 1
        return None if sums == self.counts else f"open plans {sums} are counted as {self.counts}"
