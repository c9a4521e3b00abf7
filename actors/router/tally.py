"""How many plans of a provider are open: kept by ``plans``, and at hand in the table where bids are looked at."""

from messages.base import acyclic


@acyclic
class Tally:
    """How many plans of a provider are open."""

    __slots__ = ("count", "provider")

    def __init__(self, provider: str = "") -> None:
        self.provider = provider
        self.count = 0
