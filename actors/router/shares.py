"""A share of all requests, as a token bucket: what is done besides answering stays within it.

Always: of any n requests since the start, no more than share x n were followed by what the bucket pays for; of any n in a
row, no more than share x n and what it holds. Source: the retry throttling of gRPC; Finagle's retry budgets.
"""


class Share:
    """Earns ``share`` with each request, holds ``most``, and pays 1 each time. It starts empty: nothing is done on credit."""

    __slots__ = ("_most", "level", "share")

    def __init__(self, most: float) -> None:
        self._most = most
        self.share = 0.0
        self.level = 0.0

    def earn(self) -> None:
        """There was one more request."""
        level = self.level + self.share
        self.level = level if level < self._most else self._most

    @property
    def is_spent(self) -> bool:
        """There is nothing to pay with."""
        # Twenty times 0.05 is a hair less than 1.
        return self.level < 1.0 - 1e-9

    def pay(self) -> None:
        """Take 1. Raises ``ValueError`` if it is spent: whoever pays has looked before."""
        if self.is_spent:
            raise ValueError(f"a share of {self.level} cannot pay")
        self.level = max(0.0, self.level - 1.0)
